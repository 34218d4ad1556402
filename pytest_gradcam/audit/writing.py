"""The report of an audit that is done: compared, clustered, and written as a page, `index.html`, and `report.json`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pytest_gradcam.audit.clusters import ClassClusters, clusters_of
from pytest_gradcam.audit.compare import compare, earlier
from pytest_gradcam.audit.judging import Columns, Group, Judged, fails_alone, passing, worst_first
from pytest_gradcam.audit.plots import SHARES, against, distributions
from pytest_gradcam.audit.report import AuditReport, plain
from pytest_gradcam.audit.results import columns_of, in_batches
from pytest_gradcam.audit.store import RESULTS, Folder
from pytest_gradcam.audit.worst import WORST, WORST_OF_GROUP, Look, facts_of, overlays, worst_rows
from pytest_gradcam.report.page.pictures import map_uri

MOST_GROUPS: Final = 30  # of those that fail, whose worst images are shown
MOST_CLUSTERED: Final = 20  # classes whose clusters have examples
EXAMPLES: Final = 3  # of each reason why nothing was measured
SIDE: Final = 112  # pixels of a mean map


def report_of(
    folder: Path,
    judged: Judged,
    baseline: str | os.PathLike[str] | AuditReport | None = None,
    look: Look | None = None,
) -> AuditReport:
    """The report of an audit that is done, written beside its rows.

    Args:
        folder: of the audit.
        judged: what was decided over it.
        baseline: an earlier audit, or its folder, to compare with.
        look: reads again the few images that are shown; None: their maps are drawn on plain grey.

    Raises:
        AuditError: the rows cannot be read, or the earlier audit cannot be compared with.
        OSError: the page cannot be written, or what stands in its place is none of ours.
    """
    columns = columns_of(folder / RESULTS, judged.rule.metric, sorted({group.slice for group in judged.slices}))
    report = AuditReport(
        folder,
        judged,
        about=Folder(folder).about() or {},
        comparison=None
        if baseline is None
        else compare(folder, columns, judged, earlier(baseline, judged.rule.metric, folder)),
        clusters=clusters_of(folder / RESULTS, columns, judged.rule),
    )
    from pytest_gradcam.report.audit_page.page import write_audit_page  # Jinja2 is not needed to read rows

    write_audit_page(folder, told_of(report, columns, look))
    return report


def told_of(report: AuditReport, columns: Columns, look: Look | None) -> dict[str, Any]:
    """All that the page shows, as plain values; pictures are data URIs.

    Args:
        report: what was found.
        columns: the rows.
        look: as for `report_of`.
    """
    path, rule = report.folder / RESULTS, report.judged.rule
    worst = worst_rows(columns, rule, WORST)
    failing = worst_first(group for group in (*report.slices, *report.classes) if group.outcome == "failed")
    worst_of = [
        (group, worst_rows(columns, rule, WORST_OF_GROUP, members(columns, group))) for group in failing[:MOST_GROUPS]
    ]
    shown = [each for each in report.clusters if each.found][:MOST_CLUSTERED]
    examples = [example.row for each in shown for cluster in each.clusters for example in cluster.examples]
    compared = report.comparison
    moved = [] if compared is None else [*compared.worse, *compared.better]
    order = [*worst, *(each.row for each in moved), *examples, *(row for _, rows in worst_of for row in rows)]
    facts = facts_of(path, order)
    cards = _Cards(facts, overlays(facts, order, look), columns, passing(columns, rule))
    told = report.to_json()
    _rank(report, told)
    told |= {
        "message": report.message,
        "worst": cards.of(worst),
        "worst_of": [{"kind": group.kind, "name": group.name, "cards": cards.of(rows)} for group, rows in worst_of],
        "failing": len(failing),
        "unmeasured": list(_unmeasured(path, columns)),
        "against": plain(against(path, columns, rule)),
    }
    found, classes = distributions(columns, rule)
    told["distribution"] = {"classes": classes, "shares": list(SHARES), "shown": plain(found)}
    for found_in, one in zip(report.clusters, told["clusters"], strict=True):
        _with_pictures(found_in, one, cards, is_shown=found_in in shown)
    if compared is not None:
        facts = facts_of(compared.folder / RESULTS, (each.row_before for each in moved))
        # What the model saw is the same: only the map is the earlier one.
        pictures = overlays(
            {each.row: cards.facts[each.row] | _map_of(facts[each.row_before]) for each in moved},
            [each.row for each in moved],
            look,
        )
        for each, one in zip(moved, [*told["comparison"]["worse"], *told["comparison"]["better"]], strict=True):
            one |= {"picture": cards.pictures.get(each.row), "picture_before": pictures.get(each.row)}
    return told


def members(columns: Columns, group: Group) -> npt.NDArray[np.bool_]:
    """Which rows belong to a group."""
    if group.kind == "all":
        return np.ones(len(columns), np.bool_)
    return columns.cls.equal(group.name) if group.kind == "class" else columns.about[group.slice].equal(group.text)


def _rank(report: AuditReport, told: dict[str, Any]) -> None:
    """Say of each group which it is from the worst on, and where only the correction kept it from failing."""
    told["overall"] |= _alone(report.overall, report)
    for name, groups in (("slices", report.slices), ("classes", report.classes)):
        ranks = {id(group): rank for rank, group in enumerate(worst_first(groups))}
        for group, one in zip(groups, told[name], strict=True):
            one |= {"rank": ranks[id(group)], **_alone(group, report)}


def _alone(group: Group, report: AuditReport) -> dict[str, Any]:
    return {
        "p_alone": group.p_alone,
        "questions": group.questions,
        "fails_alone": fails_alone(group, report.judged.rule),
    }


class _Cards:
    """What is shown of rows."""

    def __init__(
        self,
        facts: Mapping[int, dict[str, Any]],
        pictures: Mapping[int, str],
        columns: Columns,
        passes: npt.NDArray[np.bool_],
    ) -> None:
        self.facts = facts
        self.pictures = pictures
        self._columns = columns
        self._passes = passes

    def of(self, rows: Iterable[int]) -> list[dict[str, Any]]:
        """A card for each row."""
        return [self._card(row) for row in rows]

    def _card(self, row: int) -> dict[str, Any]:
        known = self.facts[row]
        predicted = known["predicted_label"] if known["predicted_label"] is not None else known["predicted"]
        return {
            "row": row,
            "image": known["image"],
            "cls": self._columns.cls[row],
            "value": plain(float(self._columns.value[row])),
            "passed": bool(self._passes[row]),
            "chance": plain(known["chance"]),
            "region": known["region"],
            "probability": plain(known["probability"]),
            "predicted": None if predicted is None else str(predicted),
            "is_predicted": known["predicted"] == known["cls"],
            "predicted_probability": plain(known["predicted_probability"]),
            "picture": self.pictures.get(row),
        }


def _with_pictures(each: ClassClusters, told: dict[str, Any], cards: _Cards, *, is_shown: bool) -> None:
    told["found"] = each.found
    for cluster, one in zip(each.clusters, told["clusters"], strict=True):
        one["picture"] = map_uri(cluster.mean / cluster.mean.max(), SIDE)
        one["examples"] = cards.of(example.row for example in cluster.examples) if is_shown else []


def _map_of(known: Mapping[str, Any]) -> dict[str, Any]:
    return {name: known[name] for name in ("raw", "grid_height", "grid_width")}


def _unmeasured(path: Path, columns: Columns) -> Iterator[dict[str, Any]]:
    """Of each status but `measured` how many rows have it, the most frequent first, and the first reasons."""
    statuses, counts = np.unique(columns.status[columns.status != "measured"], return_counts=True)
    examples: dict[str, dict[str, str]] = {status: {} for status in statuses.tolist()}
    wanted = set(examples)
    for batch in in_batches(path, ["status", "image", "reason"]):
        if not wanted:
            break
        for status, image, reason in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            if status in wanted:
                examples[status].setdefault(reason or "", image)
                if len(examples[status]) >= EXAMPLES:
                    wanted.discard(status)
    for place in np.argsort(-counts, kind="stable").tolist():
        status = str(statuses[place])
        told = [{"image": image, "reason": reason} for reason, image in examples[status].items()]
        yield {"status": status, "rows": int(counts[place]), "examples": told}
