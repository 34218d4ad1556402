"""The error family: what cannot be judged. Every room raises from here; this module imports nothing of the project.

Each error is also a `ValueError` or a `TypeError`, so that callers who know nothing of us catch it. A verdict that
failed is an `AttentionError`, which stands in `verdicts`.
"""

from __future__ import annotations


class GradcamError(Exception):
    """Base of everything that pytest-gradcam raises on its own account."""


class ImageError(GradcamError, ValueError):
    """The image cannot be read, or is not of a kind that can be explained."""


class ImageTypeError(ImageError, TypeError):
    """The image is of a type that is not served."""


class TransformError(GradcamError, ValueError):
    """The transform is missing, random, or does not give a model input."""


class RegionError(GradcamError, ValueError):
    """The region is malformed, empty, outside the image, or lost in the transform."""


class RegionTypeError(RegionError, TypeError):
    """The region is of a type that is not served."""


class VacuousRegionError(RegionError):
    """A region that a map without any information would satisfy."""


class VacuousThresholdError(GradcamError, ValueError):
    """A threshold that the map it is meant to reject would pass, or that no map could pass."""


class ClassError(GradcamError, ValueError):
    """The class is out of range, unknown, or no class at all."""


class ModelError(GradcamError, ValueError):
    """The model is not one that can be explained as it is."""


class ModelTypeError(ModelError, TypeError):
    """The model is of a type that is not served."""


class NonFiniteError(GradcamError, ValueError):
    """NaN or infinity in the image, the logits, the activations, the gradients or the map."""


class TargetLayerError(GradcamError, ValueError):
    """No layer, or not the one named, gives a map for this score."""


class DeviceError(GradcamError, ValueError):
    """The device is unknown or not present."""


class SettingsError(GradcamError, ValueError):
    """A setting, option or argument has a value that is not served."""


class BaselineError(GradcamError, ValueError):
    """A baseline cannot be read, written or named, or belongs to another test."""


class MissingBaselineError(BaselineError):
    """There is no baseline yet: nothing that the map could be compared with."""


class ZeroEvidenceWarning(UserWarning):
    """`explain` returned a map that is zero everywhere; an assertion on it raises `ZeroEvidenceError`."""


def said_by(error: BaseException) -> str:
    """What an error says; of ours all of it, of others their kind and their first line."""
    text = str(error).strip()
    if isinstance(error, GradcamError):
        return text
    return f"{type(error).__name__}: {text.partition(chr(10))[0]}".removesuffix(": ")


for _public in list(globals().values()):
    # Where a person imports them from: shorter in every traceback, and the name that documentation uses.
    if isinstance(_public, type) and issubclass(_public, GradcamError | ZeroEvidenceWarning):
        _public.__module__ = "pytest_gradcam"
