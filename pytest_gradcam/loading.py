"""Models by name, as a command line gives them: timm's, or a factory of the user's own; weights from a file.

Weights only: no code in a file is run. What a model is to be explained by lives in `cam`.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import pickle
import re
import socket
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import reduce
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies

import timm
import torch
from torch import Tensor, nn

from pytest_gradcam.cam.model import unwrap
from pytest_gradcam.errors import ModelError, ModelTypeError

TIMM: Final = "timm"
# Where checkpoints of training runs keep the weights; averaged ones come first, as timm has it.
WEIGHTS: Final = ("state_dict_ema", "model_ema", "state_dict", "model")
# Seconds to wait for the host that timm's weights come from: the download library tries for a minute.
PATIENCE: Final = 3.0
LISTED: Final = 3

_GLOBAL = re.compile(r"GLOBAL\s+(\S+)")


def load_model(name: str, checkpoint: Path | str | None = None, *, pretrained: bool = True) -> nn.Module:
    """A model by name, in eval mode.

    Args:
        name: a timm architecture, also as `timm:resnet50`; or `module:factory`, imported also from the current folder,
            where the factory is a callable without arguments that gives a model, or a model itself.
        checkpoint: file with the weights, all of them: `.safetensors`, or what `torch.save` made of a `state_dict`. A
            timm model gets as many classes as the file has.
        pretrained: whether a timm model without a checkpoint has the weights that timm offers, and not random ones.

    Raises:
        ModelError: there is no such model, or its weights cannot be had or do not fit.
        ModelTypeError: the factory gives something else.
    """
    package, colon, rest = name.partition(":")
    weights = None if checkpoint is None else _weights(Path(checkpoint))
    if not colon or package == TIMM:
        model = _of_timm(rest if colon else name, weights, pretrained=pretrained)
    else:
        model = _of_factory(name, is_changed=weights is not None)
    if weights is not None:
        _put(weights, model, Path(checkpoint or ""))
    return model.eval()


def load_object(name: str) -> Any:
    """What `module:attribute` names, imported also from the current folder.

    Raises:
        ModelError: there is no such module or attribute.
    """
    module_name, _, attribute = name.partition(":")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return reduce(getattr, attribute.split("."), importlib.import_module(module_name))
    except (ImportError, AttributeError, ValueError, TypeError) as error:  # the last two of names that are none
        raise ModelError(f"{name!r} cannot be imported: {error}") from error
    except Exception as error:  # the user's module runs, and may raise anything
        raise ModelError(f"{name!r} cannot be imported: {_raised(error)}") from error


def _of_timm(name: str, weights: Mapping[str, Tensor] | None, *, pretrained: bool) -> nn.Module:
    if not timm.is_model(name):
        close = timm.list_models(f"*{name}*")[:3]
        hint = f"; did you mean {', '.join(close)}?" if close else ""
        raise ModelError(f"timm has no model {name!r}, and it is no module:factory{hint}")
    if weights is None and pretrained:
        return _pretrained(name)
    classes = None if weights is None else _classes(name, weights)
    model: nn.Module = timm.create_model(name, pretrained=False, num_classes=classes)  # None: timm's own
    return model


def _pretrained(name: str) -> nn.Module:
    try:
        with _without_waiting():
            model: nn.Module = timm.create_model(name, pretrained=True)
            return model
    except Exception as error:  # of timm, the download library, sockets and files: a dozen kinds
        raise ModelError(
            f"the pretrained weights of {name} cannot be had ({_first_line(error)}): give a file of weights with "
            f"--checkpoint FILE after --model {name}, or run once where the network can be reached"
        ) from error


@contextmanager
def _without_waiting() -> Iterator[None]:
    """Where the host cannot be reached, the download library looks only at what it has kept, and does not try again."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or getproxies() or _is_reachable(constants.ENDPOINT):
        yield
        return
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = False


def _is_reachable(address: str) -> bool:
    parts = urlsplit(address)
    try:
        port = parts.port or (80 if parts.scheme == "http" else 443)
        socket.create_connection((parts.hostname or "", port), timeout=PATIENCE).close()
    except (OSError, ValueError):
        return False
    return True


def _of_factory(name: str, *, is_changed: bool) -> nn.Module:
    made = load_object(name)
    if isinstance(made, nn.Module):
        model: object = copy.deepcopy(made) if is_changed else made  # the other model of two may be the same one
    else:
        if not callable(made) or isinstance(made, str):
            raise ModelTypeError(f"{name} is a {type(made).__name__}: it must be a model, or a callable that gives one")
        try:
            model = made()
        except Exception as error:  # so may the user's factory
            raise ModelError(f"{name} gave no model when it was called without arguments: {_raised(error)}") from error
    if not isinstance(model, nn.Module):
        raise ModelTypeError(f"{name} gives a {type(model).__name__}: it must give a torch.nn.Module")
    return model


def _weights(path: Path) -> dict[str, Tensor]:
    """The weights in a file, by name, without the prefixes of wrappers.

    Raises:
        ModelError: there is no such file, or it holds something else.
    """
    if path.is_dir():
        raise ModelError(f"the checkpoint {str(path)!r} is a folder: give the file with the weights in it")
    if not path.exists():
        where = "" if path.is_absolute() else f" in {str(Path.cwd())!r}"
        raise ModelError(f"there is no checkpoint {str(path)!r}{where}: give the path of a file with weights")
    try:
        held = _read(path)
    except Exception as error:  # what is no checkpoint makes torch raise a dozen kinds
        raise ModelError(f"the checkpoint {str(path)!r} {_why_unread(error)}") from error
    found = next((held[key] for key in WEIGHTS if held.get(key) is not None), held) if isinstance(held, dict) else held
    if not isinstance(found, Mapping):
        raise ModelError(f"the checkpoint {str(path)!r} holds a {type(found).__name__}: {_MEND}")
    odd = next((key for key, value in found.items() if not isinstance(value, Tensor)), None)
    if odd is not None or not found:
        what = "nothing" if not found else f"{odd!r}, a {type(found[odd]).__name__}, among its weights"
        raise ModelError(f"the checkpoint {str(path)!r} holds {what}: {_MEND}")
    cleaned: dict[str, Tensor] = timm.models.clean_state_dict(dict(found))
    return cleaned


_MEND: Final = "give a file of weights, a .safetensors or what torch.save(model.state_dict(), …) writes"


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path, device="cpu")
    # Not timm.models.load_checkpoint: up to 1.0.9 at least, a file that makes torch raise a TypeError is read once more
    # there without weights_only, and its code is run. Its own training runs keep their arguments as a Namespace.
    allowed = getattr(torch.serialization, "safe_globals", None)
    with warnings.catch_warnings(), nullcontext() if allowed is None else allowed([argparse.Namespace]):
        warnings.simplefilter("ignore")  # of what is no checkpoint, an error says more
        return torch.load(path, map_location="cpu", weights_only=True)


def _why_unread(error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError) and (found := _GLOBAL.search(str(error))):
        return (
            f"holds more than weights, {found[1]}, which could run code and is not read: load it where you trust it, "
            "and save its weights alone, torch.save(model.state_dict(), …)"
        )
    if "TorchScript" in str(error):
        return f"is a TorchScript archive: {_MEND}"
    if isinstance(error, PermissionError):
        return f"cannot be read ({error.strerror}): make it readable, or give another file"
    return f"is no file of weights ({_brief(error)}): {_MEND}"


def _brief(error: Exception) -> str:
    """What torch says of a file is advice over several lines; the kind of its error says no less."""
    return type(error).__name__ if isinstance(error, pickle.UnpicklingError) else _first_line(error)


def _classes(name: str, weights: Mapping[str, Tensor]) -> int | None:
    """How many classes the weights of a timm model are for; None where that cannot be told."""
    config = timm.get_pretrained_cfg(name)
    heads = getattr(config, "classifier", None) or ()
    for head in (heads,) if isinstance(heads, str) else heads:
        if (weight := weights.get(f"{head}.weight")) is not None and weight.ndim > 1:
            return int(weight.shape[0])
    return None


def _put(weights: Mapping[str, Tensor], model: nn.Module, path: Path) -> None:
    """Give a model all of its weights.

    Raises:
        ModelError: they are those of another model.
    """
    module = unwrap(model)
    own = module.state_dict()
    missing = [key for key in own if key not in weights]
    unexpected = [key for key in weights if key not in own]
    mismatched = [
        f"{key} {tuple(weights[key].shape)}, the model's {tuple(own[key].shape)}"
        for key in own
        if key in weights and isinstance(own[key], Tensor) and weights[key].shape != own[key].shape
    ]
    said = [
        f"{len(keys)} {what}: {', '.join(keys[:LISTED])}{', …' if len(keys) > LISTED else ''}"
        for keys, what in ((missing, "missing"), (unexpected, "unexpected"), (mismatched, "of another shape"))
        if keys
    ]
    if not said:
        try:
            module.load_state_dict(weights, strict=True)
        except Exception as error:  # of torch, or of a loading hook of the user's
            said = [_first_line(error)]
    if said:
        raise ModelError(
            f"the checkpoint {str(path)!r} does not fit {type(module).__name__}; of its weights {'; '.join(said)}. "
            "Give the model that it was saved from, or a module:factory that builds it"
        )


def _first_line(error: BaseException) -> str:
    said = str(error).strip().partition("\n")[0].rstrip(".")
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _raised(error: Exception) -> str:
    """What the user's own code raised, and where."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{_first_line(error)} ({Path(last.filename).name}, line {last.lineno})"
