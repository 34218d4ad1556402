"""`gradcam layers`: the layers of a model that could be read as grids, and the one that is taken, as a table."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pytest_gradcam.cam.captured import name_of_layers
from pytest_gradcam.cam.running import Options
from pytest_gradcam.cam.search import NO_GRADIENT, Judgement
from pytest_gradcam.cam.survey import Survey, survey
from pytest_gradcam.errors import GradcamError, SettingsError
from pytest_gradcam.loading import load_model

# Where neither the model nor the user says how large its input is.
SIZE = (3, 224, 224)
# Layers before the one taken that are shown unless all are asked for.
FURTHER = 6


def run(name: str, size: Sequence[int] | None, cls: int | None, everything: bool) -> int:
    """Print the table.

    Args:
        name: a timm architecture, or `module:factory`, as `load_model` has it.
        size: (C, H, W) or (H, W) of the model input; None for what the model declares.
        cls: class whose score is asked for; None for the predicted one.
        everything: show every layer, also those on which the score does not depend.

    Returns:
        0 where a layer is taken, 1 where none is, or the model cannot be had.
    """
    try:
        model = load_model(name, pretrained=False)  # layers and grids do not depend on the weights
        inputs = _inputs(model, size)
    except GradcamError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    try:
        seen = survey(model, inputs, cls, Options())
    except GradcamError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except (RuntimeError, TypeError, ValueError, AssertionError, IndexError) as error:
        # The model's own, whatever a forward may raise for an input that is not of its kind.
        said = str(error).partition("\n")[0]
        print(
            f"{type(error).__name__}: {said}\n{type(model).__name__} raised this for one input of "
            f"{'×'.join(map(str, inputs.shape[1:]))}: give its own with --size; of a model that takes more than one "
            "image tensor, give a factory of a module that takes one",
            file=sys.stderr,
        )
        return 1
    print("\n".join(table(model, inputs, seen, everything)))
    return 0 if seen.chosen is not None else 1


def _inputs(model: nn.Module, size: Sequence[int] | None) -> Tensor:
    """Noise of the size that is asked for, or that the model declares, (1, C, H, W)."""
    declared = getattr(model, "pretrained_cfg", None) or {}
    channels, height, width = tuple(declared.get("input_size") or SIZE)
    if size is not None:
        if len(size) not in (2, 3) or min(size) < 1:
            raise SettingsError(f"size {tuple(size)} is not (height, width) or (channels, height, width)")
        *first, height, width = size
        channels = first[0] if first else channels
    return torch.randn(1, channels, height, width, generator=torch.Generator().manual_seed(0))


def table(model: nn.Module, inputs: Tensor, seen: Survey, everything: bool) -> list[str]:
    """The lines of the table, the last layer first."""
    taken = seen.chosen
    shown: list[Judgement] = []
    for each in seen.judgements:
        is_taken = taken is not None and each.name == taken.name
        inside = any(each.name.startswith(f"{other.name}.") for other in shown)
        if everything or is_taken or (each.why != NO_GRADIENT and not (each.why and inside)):
            shown.append(each)
    names = [each.name for each in shown]
    if not everything and taken is not None:
        shown = shown[: names.index(taken.name) + 1 + FURTHER]
    rows = [("", "layer", "output", "read as", "")]
    for each in shown:
        is_taken = taken is not None and each.name == taken.name
        output = "×".join(map(str, each.shape))
        rows.append(("->" if is_taken else "", each.name, output, each.view, _outcome(each, is_taken)))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    _, channels, height, width = inputs.shape
    lines = [f"{type(model).__name__}, input {channels}×{height}×{width}, the last layer first", ""]
    for row in rows:
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False))
        lines.append(f"{'  '.join(cells)}  {row[4]}".rstrip())
    left_out = len(seen.judgements) - len(shown)
    if left_out:
        lines += ["", f"{left_out} more: see them with --all"]
    if len(seen.blocks) > 1:
        blocks = name_of_layers([each.name for each in seen.blocks])
        lines += ["", f"method auto reads the tokens of all blocks: {blocks}"]
    return lines if taken is not None else [*lines, "", seen.why_none]


def _outcome(judgement: Judgement, is_taken: bool) -> str:
    if judgement.why:
        return judgement.why if not is_taken else f"taken for want of a better one: {judgement.why}"
    proofs = [part.proof for part in judgement.target.parts if part.proof is not None] if judgement.target else []
    follows = min((proof.follows for proof in proofs), default=float("nan"))
    said = f"its cells follow their places (correlation {follows:.2f})"
    return f"taken: {said}" if is_taken else f"would do, named: {said}"
