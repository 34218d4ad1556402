"""Every family of timm through the public API: the layer found, whether its map follows the picture, what that costs.

    python -m benchmarks.zoo [--families a,b] [--seeds 3] [--output docs/models.md] [--state FILE] [--again]

Prints a line for each family, and writes the page of documentation where it is asked to. What was measured is kept in
the state file after each family, and not measured again.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from pytest_gradcam import Explanation, ModelError, ZeroEvidenceWarning, explain
from tests.zoo.redraw import LEAST, Redrawn, mean_of, pictures, redrawn
from tests.zoo.timm_families import FAMILIES, build, input_size, missing, present

PACKAGES = ("timm", "torch")
# Of the largest magnitude: what the engines may differ by.
ENGINES_APART = 1e-5


@dataclass(slots=True)
class Row:
    """What was measured of one family; what was not reached is None or empty.

    Attributes:
        family: timm's module.
        member: the architecture that stands for it.
        size: (C, H, W) of the input.
        parameters: how many.
        forward: seconds of a plain forward.
        layer: dotted name of the layer found.
        output: shapes of the tensors that the layer gives for one image.
        grid: (h, w) of the map.
        method: that was taken.
        seconds: of the first call, which searches.
        again: of the second, which does not.
        forwards: of the first call, counted as calls of the model.
        geometry: how the map follows the picture, for each seed.
        layers: found, for each seed.
        apart: how far the split engine's map is from that of the hooks, as a share of the largest magnitude.
        uncut: why the split engine refuses.
        error: first line of what was raised; where, and what.
    """

    family: str
    member: str
    size: tuple[int, ...]
    parameters: int = 0
    forward: float | None = None
    layer: str | None = None
    output: list[list[int]] = field(default_factory=list)
    grid: tuple[int, ...] | None = None
    method: str | None = None
    seconds: float | None = None
    again: float | None = None
    forwards: int | None = None
    geometry: list[dict[str, float]] = field(default_factory=list)
    layers: list[str] = field(default_factory=list)
    apart: float | None = None
    uncut: str | None = None
    error: str | None = None

    @property
    def mean(self) -> Redrawn | None:
        """The geometry's mean over the seeds."""
        return mean_of([Redrawn(**each) for each in self.geometry]) if self.geometry else None

    @property
    def follows(self) -> bool:
        """Whether a map was found that follows the picture."""
        return self.error is None and self.mean is not None and self.mean.follows()

    @property
    def agrees(self) -> bool:
        """Whether both engines gave the same map."""
        return self.apart is not None and self.apart <= ENGINES_APART


def measure(family: str, seeds: int) -> Row:
    """One family, from fresh models; whatever it raises becomes a part of its row."""
    row = Row(family, FAMILIES[family].name, input_size(family))
    doing = "building"
    try:
        model, picture = build(family, 0), pictures(1, input_size(family), torch.Generator().manual_seed(0))[0]
        row.parameters = sum(parameter.numel() for parameter in model.parameters())
        row.forward = _seconds_of_forward(model, picture)
        doing = "explain"
        found = _first_call(row, model, picture)
        doing = "split"
        _split(row, model, picture, found)
        doing = "geometry"
        for seed in range(seeds):
            if seed > 0:
                del model
                gc.collect()
                model = build(family, seed)
            row.geometry.append(asdict(redrawn(model, input_size(family), seed)))
            row.layers.append(explain(model, picture).layer)
    except Exception as error:  # a family that fails is a finding, and the others go on
        row.error = f"{doing}: {type(error).__name__}: {_first_line(error)}"
    return row


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _seconds_of_forward(model: nn.Module, picture: Tensor) -> float:
    taken = []
    with torch.no_grad():
        for _ in range(3):
            started = time.perf_counter()
            model(picture[None])
            taken.append(time.perf_counter() - started)
    return min(taken)


def _first_call(row: Row, model: nn.Module, picture: Tensor) -> Explanation:
    calls: list[nn.Module] = []
    handle = model.register_forward_pre_hook(lambda module, _: calls.append(module))
    try:
        started = time.perf_counter()
        found = explain(model, picture)
        row.seconds = time.perf_counter() - started
    finally:
        handle.remove()
    started = time.perf_counter()
    explain(model, picture, found.cls)
    row.again = time.perf_counter() - started
    row.forwards, row.layer, row.grid, row.method = len(calls), found.layer, found.grid, found.method
    row.output = _shapes(model, found.layer, picture)
    return found


def _shapes(model: nn.Module, layer: str, picture: Tensor) -> list[list[int]]:
    seen: list[list[int]] = []

    def look(_module: nn.Module, _inputs: Any, output: Any) -> None:
        seen.extend(list(leaf.shape) for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor))

    handle = model.get_submodule(layer).register_forward_hook(look)
    try:
        with torch.no_grad():
            model(picture[None])
    finally:
        handle.remove()
    return seen


def _split(row: Row, model: nn.Module, picture: Tensor, hooks: Explanation) -> None:
    try:
        split = explain(model, picture, hooks.cls, engine="split")
    except ModelError as error:
        if "cannot be cut" not in str(error):
            raise
        row.uncut = " ".join(str(error).split())
        return
    if split.grid != hooks.grid:
        raise AssertionError(f"the engines' grids differ: {split.grid} and {hooks.grid}")
    row.apart = float(np.abs(split.raw - hooks.raw).max() / np.abs(hooks.raw).max())


def load(path: Path, seeds: int) -> dict[str, Row]:
    """The rows of an earlier run with the same packages and seeds, but for those that ended in an error."""
    if not path.exists():
        return {}
    kept = json.loads(path.read_text(encoding="utf-8"))
    if kept["about"] != _about(seeds):
        return {}
    rows = [Row(**row) for row in kept["rows"]]
    return {row.family: row for row in rows if row.error is None and row.member == FAMILIES[row.family].name}


def save(path: Path, rows: dict[str, Row], seeds: int) -> None:
    """Keep what was measured so far."""
    document = {"about": _about(seeds), "rows": [asdict(row) for row in rows.values()]}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _about(seeds: int) -> dict[str, Any]:
    return {"seeds": seeds, "versions": {package: version(package) for package in PACKAGES}}


def line(row: Row) -> str:
    """A row as a person reads it while it runs."""
    start = f"{row.family:<26} {row.member:<32}"
    if row.layer is None:
        return f"{start} {row.error}"
    assert row.grid is not None and row.seconds is not None
    first = f"{row.layer} {_by(row.grid)} {row.method} {row.seconds:.2f} s, {row.forwards} forwards"
    follows = "" if row.mean is None else f"; {row.mean}{'' if row.follows else '  FALLS SHORT'}"
    return f"{start} {first}{follows}; split {_cut(row)}" + ("" if row.error is None else f"; {row.error}")


def _by(sides: Sequence[int]) -> str:
    return "×".join(map(str, sides))


def _cut(row: Row) -> str:
    if row.uncut is not None:
        return "refused"
    return "" if row.apart is None else "same" if row.apart == 0 else f"{row.apart:.0e}"


INTRODUCTION = """# Models whose layer is found unasked

`explain(model, tensor)`, with nothing configured, over every family of architectures in timm {timm}: one row for each
module of `timm.models` that registers one, by its smallest member, with random weights. Written by

```sh
python -m benchmarks.zoo --seeds {seeds} --output docs/models.md
```

with torch {torch}, on one thread of a CPU that others use too: read the seconds against each other.

Of {families} families, a map is found for {found}; it follows the picture for {follow}; both engines give the same
map for {agree}.

- **target layer**, **output**, **grid**, **method**: what was found: the layer, the shape of its output for one image,
  the cells of the map, and the method that `auto` takes there.
- **forward**: seconds of a plain forward. **first call**: seconds of the first `explain`, which searches and checks,
  and in brackets how often it calls the model. **next**: seconds of the second, which knows the layer.
- **along**: the check of geometry. A picture is redrawn in one window after the other, 4 × 4 of them, each a quarter of
  the side, and the map of the same class made again. The centroid of the change of the raw CAM must follow the window:
  the correlation of its row with the window's row, and of its column with the window's column. **across**: of its row
  with the window's column, and of its column with the window's row. Means over {seeds} draws of weights and pictures.
  At least {least} along is asked for, and more along than across. Random weights look everywhere, so a right map may
  stay well below 1; a map that is read wrongly is near 0 along.
- **split**: how far the split engine's map is from that of the hooks, as a share of the largest magnitude; or that it
  refuses, because no cut of the model runs as the model does.

"""
COLUMNS = {
    **dict.fromkeys(("family", "member"), "---"),
    "input": "--:",
    **dict.fromkeys(("target layer", "output"), "---"),
    "grid": "--:",
    "method": "---",
    **dict.fromkeys(("forward", "first call", "next", "along", "across", "split"), "--:"),
}


def page(rows: dict[str, Row], seeds: int) -> str:
    """The page of documentation."""
    ordered = [rows[family] for family in sorted(rows)]
    introduction = INTRODUCTION.format(
        **_about(seeds)["versions"],
        seeds=seeds,
        least=LEAST,
        families=len(ordered),
        found=sum(row.layer is not None for row in ordered),
        follow=sum(row.follows for row in ordered),
        agree=sum(row.agrees for row in ordered),
    )
    header = f"| {' | '.join(COLUMNS)} |\n|{'|'.join(COLUMNS.values())}|\n"
    table = header + "".join(_table_line(row) for row in ordered)
    return introduction + table + "".join(_exceptions(ordered))


def _table_line(row: Row) -> str:
    cells = [row.family, f"`{row.member}`", _by(row.size[1:])]
    if row.layer is None:
        return "| " + " | ".join([*cells, "none", *[""] * (len(COLUMNS) - 4)]) + " |\n"
    assert row.grid is not None and row.seconds is not None and row.forward is not None and row.again is not None
    cells += [f"`{row.layer}`", ", ".join(_by(shape) for shape in row.output), _by(row.grid), str(row.method)]
    cells += [f"{row.forward:.2f}", f"{row.seconds:.2f} ({row.forwards})", f"{row.again:.2f}"]
    mean = row.mean
    if mean is None:
        cells += ["", ""]
    else:
        along, across = f"{mean.along_row:.2f} {mean.along_col:.2f}", f"{mean.across_row:.2f} {mean.across_col:.2f}"
        cells += [along if row.follows else f"**{along}**", across]
    return "| " + " | ".join([*cells, _cut(row)]) + " |\n"


def _exceptions(rows: Sequence[Row]) -> list[str]:
    lists = {
        "No map": [f"{row.family} (`{row.member}`): {row.error}" for row in rows if row.layer is None],
        "A map that falls short": [
            f"{row.family} (`{row.member}`), at `{row.layer}`: {row.mean}; each draw, along: "
            + ", ".join(f"{each['along_row']:.2f} {each['along_col']:.2f}" for each in row.geometry)
            for row in rows
            if row.mean is not None and not row.mean.follows()
        ],
        "Another layer for other weights": [
            f"{row.family} (`{row.member}`): " + ", ".join(f"`{layer}`" for layer in row.layers)
            for row in rows
            if len(set(row.layers)) > 1
        ],
        "Engines that differ": [
            f"{row.family} (`{row.member}`): by {row.apart:.1e}"
            for row in rows
            if row.apart is not None and not row.agrees
        ],
        "Refused by the split engine": [
            f"{row.family} (`{row.member}`): {row.uncut}" for row in rows if row.uncut is not None
        ],
        "Other errors": [
            f"{row.family} (`{row.member}`): {row.error}"
            for row in rows
            if row.layer is not None and row.error is not None
        ],
    }
    return [
        f"\n## {title}\n\n" + "".join(f"- {entry}\n" for entry in entries)
        for title, entries in lists.items()
        if entries
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--families", help="separated by commas; default: all that the installed timm has")
    parser.add_argument("--seeds", type=int, default=3, help="draws of weights and pictures (default: %(default)s)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the page of documentation here")
    state = Path(tempfile.gettempdir()) / "pytest-gradcam-zoo.json"
    parser.add_argument(
        "--state", type=Path, default=state, metavar="FILE", help="what was measured (default: in temp)"
    )
    parser.add_argument("--again", action="store_true", help="measure anew what the state file has")
    parser.add_argument("--threads", type=int, default=1, help="torch.set_num_threads (default: %(default)s)")
    asked = parser.parse_args(arguments)
    families = present() if asked.families is None else asked.families.split(",")
    if unknown := sorted(set(families) - set(present())):
        parser.error(f"no such family: {', '.join(unknown)}")
    if asked.seeds < 1:
        parser.error("--seeds must be at least 1")
    torch.set_num_threads(asked.threads)
    warnings.simplefilter("ignore", ZeroEvidenceWarning)
    if missing():
        print(f"families of this timm that the zoo has not: {', '.join(missing())}", flush=True)
    kept = load(asked.state, asked.seeds)
    known = {} if asked.again else {family: row for family, row in kept.items() if family in families}
    if known:
        print(f"{len(known)} families measured before; --again measures them anew", flush=True)
    for number, family in enumerate(families, 1):
        if family not in known:
            started = time.perf_counter()
            known[family] = measure(family, asked.seeds)
            gc.collect()
            save(asked.state, {**kept, **known}, asked.seeds)
            print(f"{number:3}/{len(families)} {time.perf_counter() - started:6.1f} s  ", end="")
            print(line(known[family]), flush=True)
    follow, agree = sum(row.follows for row in known.values()), sum(row.agrees for row in known.values())
    print(f"{len(known)} families: {follow} follow the picture, {agree} are the same by both engines")
    if asked.output is not None:
        asked.output.write_text(page(known, asked.seeds), encoding="utf-8")


if __name__ == "__main__":
    main()
