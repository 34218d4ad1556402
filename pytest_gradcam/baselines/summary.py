"""The end of a run: what happened to baselines, what waits to be approved, what no test uses. Records in, lines out.

Standard library only: with xdist this runs in a process that has loaded neither torch nor numpy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pytest_gradcam.report.lines import printable

ROWS: Final = 20


def summary(
    events: Sequence[Mapping[str, Any]],
    unused: Sequence[tuple[str, str, bool]],
    *,
    update: str | None,
    orphans: str,
    in_ci: bool,
    received: str,
    review: str = "gradcam review",
) -> tuple[str, list[str]]:
    """Title and lines of the section on baselines; no lines where there is nothing to say.

    Args:
        events: what shelves have told, in any order.
        unused: path, why, and whether it was removed, of each baseline that no test uses.
        update: which baselines the run was told to write.
        orphans: what becomes of unused ones: `report`, `ignore` or `fail`.
        in_ci: whether the run is one of CI.
        received: the folder of the files that wait.
        review: the command that shows them, from where the run was started.
    """
    # A test that ran again has told twice: what happened last holds, but what was written is worth saying.
    last: dict[str, Mapping[str, Any]] = {}
    for event in events:
        if event["happened"] != "compared" or event["path"] not in last:
            last[event["path"]] = event
        elif last[event["path"]]["happened"] not in ("created", "updated"):
            last[event["path"]] = event
    by_kind: dict[str, list[Mapping[str, Any]]] = {}
    for event in last.values():
        by_kind.setdefault(event["happened"], []).append(event)
    shown = [] if orphans == "ignore" and update != "prune" else list(unused)
    counts = {kind: len(by_kind.get(kind, [])) for kind in ("compared", "created", "updated", "changed", "missing")}
    counts["unused"] = sum(not removed for _, _, removed in shown)
    counts["removed"] = len(shown) - counts["unused"]
    told = [f"{count} {'same' if kind == 'compared' else kind}" for kind, count in counts.items() if count]
    lines: list[str] = []
    for kind in ("created", "updated"):
        lines += _listed(kind, sorted(event["id"] for event in by_kind.get(kind, [])))
    waiting = [event for event in last.values() if event.get("received")]
    if waiting:
        lines.append(f"  {len(waiting)} received in {received}: see `{review}`")
    if (by_kind.get("created") or by_kind.get("updated")) and in_ci:
        lines.append(
            f"  CI is set, and baselines were written: --gradcam-update={update} was given. What is not committed is "
            "lost with this checkout"
        )
    if by_kind.get("created") or by_kind.get("updated"):
        lines.append("  look at them before they are committed: in the report page, or with --gradcam-previews=true")
    if shown:
        for kind, is_removed in (("removed", True), ("unused", False)):
            lines += _listed(kind, [f"{path}  ({why})" for path, why, removed in shown if removed is is_removed])
        if any(not removed for _, _, removed in shown):
            fails = "; the run fails: gradcam_orphans = fail" if orphans == "fail" else ""
            lines.append(f"  --gradcam-update=prune removes unused baselines{fails}")
    return f"baselines: {', '.join(told)}", lines


def _listed(kind: str, texts: Sequence[str]) -> list[str]:
    more = [f"  {'':<9}… and {len(texts) - ROWS} more"] if len(texts) > ROWS else []
    return [f"  {kind:<8} {printable(text)}" for text in texts[:ROWS]] + more
