"""What `gradcam explain` does: loads a model and a picture, explains, writes a figure or a sheet, tells where it is."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from torch import nn

from pytest_gradcam.cam.heatmap import colourise
from pytest_gradcam.cam.running import Options
from pytest_gradcam.errors import GradcamError, SettingsError, TransformError, said_by
from pytest_gradcam.explanations import explain_prepared
from pytest_gradcam.figures.asked import (
    ALL,
    MOST,
    Guess,
    Tile,
    guesses,
    imagenet_labels,
    layers_of,
    methods_of,
    tiles,
)
from pytest_gradcam.figures.figure import chance_of, side_by_side, told
from pytest_gradcam.figures.sheet import contact_sheet
from pytest_gradcam.images import Prepared, prepare
from pytest_gradcam.loading import TIMM, load_model, load_object
from pytest_gradcam.report.lines import in_ascii, printable
from pytest_gradcam.report.overlay import is_overlay, save_figure

SUFFIX: Final = "-gradcam.png"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the command line asks for.

    Attributes:
        image: the picture's file.
        model: a timm architecture, or `module:factory`.
        checkpoint: file of the model's weights; None: those that timm offers, or the factory's.
        transform: `module:callable`, picture → model input; None: what the model declares.
        cls: class index or label; None: what is predicted.
        method: of a figure.
        methods: of a sheet: a list with commas, or `all`; None: `method` alone.
        layer: of a figure, or of all tiles; None: found.
        layers: of a sheet: a list with commas, or `all`; None: `layer` alone.
        engine: `hooks` or `split`.
        device: `auto`, or a torch device.
        colormap: name of an OpenCV colour map.
        top: how many of the likeliest classes are shown.
        out: the file that is written; None: beside where the command runs, by the picture's name.
    """

    image: Path
    model: str
    checkpoint: str | None = None
    transform: str | None = None
    cls: int | str | None = None
    method: str = "auto"
    methods: str | None = None
    layer: str | None = None
    layers: str | None = None
    engine: str = "hooks"
    device: str = "auto"
    colormap: str = "jet"
    top: int = 5
    out: Path | None = None

    @property
    def about(self) -> str:
        """The picture and the model, in a line."""
        weights = "" if self.checkpoint is None else f", {Path(self.checkpoint).name}"
        return f"{self.image.name} · {self.model}{weights}"


def run(wanted: Wanted) -> int:
    """Explain, write, tell.

    Returns:
        0 where there is a map, 1 where there is none with evidence, 2 where the model or the picture cannot be had, or
        the figure cannot be written.
    """
    try:
        out = _checked_out(wanted)
        colourise(np.zeros((1, 1), np.float32), wanted.colormap)  # a name that is none, said before an hour's work
        return _explained(wanted, out)
    except GradcamError as error:
        _complain(str(error))
    except OSError as error:
        _complain(f"the figure cannot be written: {error.strerror or error}")
    return 2


def _explained(wanted: Wanted, out: Path) -> int:
    options = Options(method=wanted.method, layer=wanted.layer, engine=wanted.engine, device=wanted.device)
    transform = None if wanted.transform is None else load_object(wanted.transform)
    model = load_model(wanted.model, wanted.checkpoint)
    is_timms = wanted.model.partition(":")[0] in (wanted.model, TIMM)
    if is_timms and wanted.checkpoint is None:  # weights of the user's own may be of other classes, and as many
        options = replace(options, labels=imagenet_labels(model))
    try:
        prepared = _prepared(wanted, model, transform)
        asked, top = guesses(model, prepared, wanted.cls, options, wanted.top)
        if wanted.methods is None and wanted.layers is None:
            return _figure(wanted, model, prepared, asked, top, options, out)
        return _sheet(wanted, model, prepared, asked, options, out)
    except (GradcamError, OSError):
        raise
    except Exception as error:  # the model's own, or the transform's
        raise GradcamError(f"{wanted.model} cannot be run on {wanted.image.name}: {said_by(error)}") from error


def _prepared(wanted: Wanted, model: nn.Module, transform: Any) -> Prepared:
    try:
        return prepare(wanted.image, model=model, transform=transform)
    except TransformError as error:
        if transform is not None:
            raise
        raise TransformError(f"{error}; on the command line, with --transform module:callable") from error


def _figure(
    wanted: Wanted, model: nn.Module, prepared: Prepared, asked: Guess, top: list[Guess], options: Options, out: Path
) -> int:
    (explanation,) = explain_prepared(model, [prepared], [asked.cls], options)
    save_figure(side_by_side(explanation, wanted.about, asked, top, wanted.colormap), out)
    _tell(f"{_class(asked)} · {told(explanation)}")
    if explanation.evidence <= 0:
        _tell(f"no evidence: nothing at {explanation.layer} speaks for {asked.name}; name another layer or class")
    _tell(f"figure: {out}")
    return 0 if explanation.evidence > 0 else 1


def _sheet(wanted: Wanted, model: nn.Module, prepared: Prepared, asked: Guess, options: Options, out: Path) -> int:
    methods = [wanted.method] if wanted.methods is None else methods_of(wanted.methods)
    layers: list[str | None] = [wanted.layer]
    left = 0
    if wanted.layers is not None:
        named, left = layers_of(wanted.layers, model, prepared, asked.cls, options)
        layers = [*named]
    count = len(methods) * len(layers)
    if not count:
        raise SettingsError("the list of methods or layers is empty: name some, or give all")
    if count > MOST:
        raise SettingsError(
            f"{len(methods)} methods at {len(layers)} layers are {count} tiles, and a sheet has at most {MOST}: name "
            "fewer, as --methods a,b and --layers c,d"
        )
    _tell(_class(asked))
    made: list[Tile] = []
    for tile in tiles(model, prepared, asked.cls, methods, layers, options):
        made.append(tile)
        _tell(_line(tile, max(map(len, methods))))  # as they come: some methods take minutes
    if left:
        _tell(f"and {left} earlier layers: name them with --layers")
    rows = None if wanted.methods is None or wanted.layers is None else len(layers)
    below = _below(methods, layers, wanted.layers == ALL)
    save_figure(contact_sheet(prepared.seen, wanted.about, below, asked, made, wanted.colormap, rows), out)
    _tell(f"figure: {out}")
    return 0 if any(tile.has_map for tile in made) else 1


def _below(methods: list[str], layers: list[str | None], is_all: bool) -> str:
    """What the tiles of a sheet are, in a line."""
    how = methods[0] if len(methods) == 1 else f"{len(methods)} methods"
    if len(layers) > 1:
        return f"{how} at {len(layers)} layers{', the last one first' if is_all else ''}"
    return f"{how}, each at the layer that is found for it" if layers[0] is None else f"{how} at {layers[0]}"


def _line(tile: Tile, width: int) -> str:
    if tile.has_map and tile.explanation is not None:
        return f"  {tile.method:<{width}}  {told(tile.explanation)}"
    where = tile.layer or (tile.explanation.layer if tile.explanation is not None else "")
    at = f"at {where}: " if where else ""
    return f"  {tile.method:<{width}}  {at}{tile.reason.partition(chr(10))[0]}"


def _class(asked: Guess) -> str:
    label = "" if asked.label is None else f" ({asked.label})"
    return f"class {asked.cls}{label}, {chance_of(asked.probability)}"


def _checked_out(wanted: Wanted) -> Path:
    """Where the figure goes; asked before an hour's work is done for it.

    Raises:
        SettingsError: what stands there is not ours, or is the picture itself.
    """
    out = Path(f"{wanted.image.stem}{SUFFIX}") if wanted.out is None else wanted.out
    if out.suffix.lower() != ".png":
        raise SettingsError(f"the figure is a PNG file, and {out.name!r} is no name of one: end it in .png")
    if os.path.lexists(out):
        if out.exists() and wanted.image.exists() and out.samefile(wanted.image):
            raise SettingsError(f"{str(out)!r} is the picture that is explained: give another --out")
        if not is_overlay(out):
            raise SettingsError(
                f"{str(out)!r} is there already, and no figure of ours: remove it, or give another --out"
            )
    return out


def _tell(line: str) -> None:
    """Print a line; what would steer the terminal, or what it cannot write, is spelt out."""
    said = printable(line)
    encoding = sys.stdout.encoding or "utf-8"
    try:
        said.encode(encoding)
    except UnicodeEncodeError:
        said = in_ascii(said).encode(encoding, "backslashreplace").decode(encoding)
    print(said, flush=True)


def _complain(text: str) -> None:
    encoding = sys.stderr.encoding or "utf-8"
    for line in text.splitlines():
        said = printable(f"gradcam explain: {line}")
        print(said.encode(encoding, "backslashreplace").decode(encoding), file=sys.stderr)
