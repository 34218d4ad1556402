"""`gradcam review`: what waits, shown one by one in the terminal, and approved, rejected or left by a letter."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from pytest_gradcam.baselines import store
from pytest_gradcam.baselines.baseline import Baseline
from pytest_gradcam.baselines.commands.approve import found_in
from pytest_gradcam.baselines.commands.console import complain, ending_well, floored, say
from pytest_gradcam.baselines.compare import Compared, compare, limits
from pytest_gradcam.baselines.received.deeds import approve, discard, tidy
from pytest_gradcam.baselines.received.proposals import propose
from pytest_gradcam.baselines.received.waiting import Waiting
from pytest_gradcam.baselines.shelf import RECEIVED
from pytest_gradcam.errors import BaselineError
from pytest_gradcam.metrics.movement import movement
from pytest_gradcam.report.beside import colour_beside, plain_beside
from pytest_gradcam.report.lines import printable
from pytest_gradcam.report.maps import colour_map, fitted, plain_map
from pytest_gradcam.verdicts import Fact

FLOOR: Final = "same_weights"
_PROMPT: Final = "[a]pprove  [r]eject  [s]kip  [A]ll that are left  [q]uit: "
_LETTERS: Final = "arsAq"
_SIDE: Final = 132  # a grid is enlarged to this before it is drawn: interpolated as the CAM is, not as squares


def run(report: Path, root: Path) -> int:
    """Show what waits, one by one, and do with each what the answer on stdin says.

    Args:
        report: folder of the report, which holds that of the received files.
        root: pytest's rootdir.

    Returns:
        0 where nothing is left; 1 where something is, or cannot be read; 130 where it was interrupted.
    """
    return ending_well(lambda: _run(report, root))


def _run(report: Path, root: Path) -> int:
    found = found_in(report, root)
    if not found.waiting:
        return 1 if found.unusable else 0
    count: Counter[str] = Counter()
    targets: list[Path] = []
    letter = ""
    try:
        for place, each in enumerate(found.waiting, start=1):
            say(printable(f"{place} of {len(found.waiting)}  {each.id}"))
            try:
                if letter != "A":
                    for line in shown(each, root):
                        say(line)
                    letter = _asked()
                if letter == "q":
                    break
                if letter in "aA":
                    targets.append(approve(each, root))
                    say(f"approved{'' if letter == 'A' else chr(10)}")
                    count["approved"] += 1
                elif letter == "r":
                    discard(each)
                    rest = "the baseline stays" if each.received.replaces else "there is no baseline still"
                    say(f"rejected: {rest}, and the test goes on failing\n")
                    count["rejected"] += 1
                else:
                    say("skipped\n")
            except BaselineError as error:
                complain(error)
                say()
    except KeyboardInterrupt:
        say()  # the prompt's line ends
        raise
    finally:
        tidy(report / RECEIVED, targets)
        left = len(found.waiting) - count.total()
        say(f"{count['approved']} approved, {count['rejected']} rejected, {left} left")
    return 1 if left or found.unusable else 0


def _asked() -> str:
    """The letter of the answer; at the end of the input, that of leaving."""
    while True:
        say(_PROMPT, end="")
        sys.stdout.flush()
        try:
            line = sys.stdin.readline()
        except UnicodeDecodeError:
            line = "?\n"
        if not sys.stdin.isatty():
            say(printable(line.rstrip("\n")))  # as it would stand there had it been typed
        if not line:
            return "q"
        letter = line.strip()[:1]
        if letter and letter in _LETTERS:
            return letter


def shown(waiting: Waiting, root: Path) -> list[str]:
    """The lines that show what waits: what it is, what became of its baseline, and the maps.

    Raises:
        BaselineError: it may not be approved.
    """
    proposal = propose(waiting, root)
    now = proposal.baseline
    before = None if proposal.is_new else store.read(proposal.target)
    facts = _facts(before, now)
    if proposal.is_written:
        facts.append(("written", "an approval was interrupted after it: approve once more to end it"))
    picture = waiting.path.with_suffix(store.PREVIEW)
    if picture.is_file():
        facts.append(("picture", str(picture)))
    lines = [f"  {name:<9}  {printable(text)}" for name, text in facts]
    return [*lines, "", *(f"  {line}" for line in _maps(before, now)), ""]


def _facts(before: Baseline | None, now: Baseline) -> list[Fact]:
    facts: list[Fact] = [("class", _class(before, now))]
    grid = "{}×{}".format(*now.grid)
    facts.append(("layer", " · ".join([now.layer, now.method, grid, now.engine, now.device])))
    if before is None:
        facts.append(("new", "there is no baseline yet: this map would be the first"))
        return facts
    compared = compare(before, now, limits(FLOOR))
    facts += told(compared)
    if compared.passed:
        facts.append(("floor", f"{FLOOR} would let it pass: the test asks for more"))
    moved = movement(before.raw, now.raw) if before.grid == now.grid else None
    if moved is not None:
        facts.append(("moved", f"{moved.moved:.0%} of the mass, {moved}"))
    return facts


def told(compared: Compared) -> list[Fact]:
    """What a comparison has found, in words."""
    if compared.changes:
        return [("changed", f"{name}: {text}") for name, text in compared.changes]
    shift = f"{compared.shift:.2f} cells, allowed {compared.allowed:.2f}"
    return [
        ("pearson", f"{floored(compared.pearson)}, needs {compared.least:g}"),
        ("distance", f"the mass moved {'at most ' if compared.stays else ''}{shift}"),
    ]


def _class(before: Baseline | None, now: Baseline) -> str:
    if now.predicted is None:
        return now.class_name
    predicted = f"class {now.predicted}"
    if before is not None and before.predicted not in (None, now.predicted):
        return f"{now.class_name}; predicted was class {before.predicted}, is {predicted}"
    return f"{now.class_name}, " + ("which is predicted" if now.predicted == now.cls else f"predicted is {predicted}")


def _maps(before: Baseline | None, now: Baseline) -> Sequence[str]:
    truecolor = _colours(os.environ) if sys.stdout.isatty() else None
    if before is not None:
        maps = _enlarged(before), _enlarged(now)
        return plain_beside(*maps) if truecolor is None else colour_beside(*maps, truecolor=truecolor)
    cam = _enlarged(now)
    nowhere = np.zeros_like(cam)
    if truecolor is None:
        return plain_map(cam, nowhere)
    return colour_map(np.zeros((*cam.shape, 3), np.uint8), cam, nowhere, truecolor=truecolor)


def _colours(environment: Mapping[str, str]) -> bool | None:
    """Whether the terminal knows 24-bit colours; None where it is to have none."""
    if environment.get("NO_COLOR") or environment.get("TERM") == "dumb":
        return None
    return environment.get("COLORTERM", "").lower() in ("truecolor", "24bit")


def _enlarged(baseline: Baseline) -> npt.NDArray[np.float32]:
    """The CAM on more cells than there are characters; the frame's own size is only what the file says."""
    rows, columns = baseline.grid
    times = _SIDE / max(rows, columns)
    if times <= 1.0:
        return baseline.cam
    return fitted(baseline.cam, max(1, round(rows * times)), max(1, round(columns * times)))
