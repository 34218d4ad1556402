"""Maps and verdicts as HTML for notebooks: a picture beside a small table. Values in, HTML out.

All text is data: it is escaped, and neither a notebook's Markdown nor its MathJax reads it. Colours are those of the
notebook, light or dark.
"""

from __future__ import annotations

import base64
import html
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from pytest_gradcam.cam.explanation import Explanation
from pytest_gradcam.cam.heatmap import blend, encode_png
from pytest_gradcam.report.beside import compared, picture_beside
from pytest_gradcam.report.lines import printable
from pytest_gradcam.report.maps import fitted, mask_of
from pytest_gradcam.report.panels import outline, panel_of, panel_size
from pytest_gradcam.report.summary import told_apart
from pytest_gradcam.verdicts import Sight, Verdict

Rows: TypeAlias = list[tuple[str, str]]

_LARGEST: Final = 512  # pixels of a picture's longer side: a notebook keeps all that it ever showed
# Of middling lightness: they can be read on white and on black.
_COLOURS: Final = {"passed": "#2e8b57", "failed": "#d9534f", "inconclusive": "#b8860b"}
_CELL: Final = "padding:2px 12px 2px 0;text-align:left;vertical-align:top;border:0;background:transparent"


def explanation_html(explanation: Explanation) -> str:
    """The map over what the model saw, and how it was made."""
    sight = Sight(explanation)
    return _block([_figure(_overlay(sight), _class(explanation), _overlay_width(sight))], "", _rows_of(explanation))


def verdict_html(verdict: Verdict) -> str:
    """What was judged, the numbers, and the maps: of two that were compared, both and their difference."""
    pair = compared(verdict)
    if pair is not None:
        before, after, titles, mask = pair
        drawn = picture_beside(before, after, verdict.shown[1].explanation.image, titles, mask=mask)
        figures = [_figure(drawn, " | ".join(("what the model saw", *titles)), 1000)]
    else:
        figures = [_figure(_overlay(each), each.title or "overlay", _overlay_width(each)) for each in verdict.shown]
    colour = _COLOURS[verdict.outcome]
    heading = (
        f'<div style="margin-bottom:6px"><b style="color:{colour}">{verdict.outcome}</b> '
        f"{_text(verdict.assertion)}<br>{_text(verdict.message)}</div>"
    )
    return _block(figures, heading, _numbers(verdict))


def _numbers(verdict: Verdict) -> Rows:
    value, threshold = told_apart(verdict.value, verdict.threshold)
    rows = [
        (verdict.metric.replace("_", " "), value),
        ("at most" if verdict.at_most else "at least", threshold),
        ("chance", f"{verdict.chance:.2f}"),
    ]
    if verdict.interval is not None:
        low, high = verdict.interval
        rows.append(("interval", f"{low:.2f} to {high:.2f}, of {len(verdict.values)} images"))
    sight = verdict.sight
    if sight is not None and sight.place is not None:
        rows.append(("region", str(sight.place.region)))
    if verdict.baseline is not None:
        rows.append(("baseline", verdict.baseline))
    rows += verdict.facts
    return rows if sight is None else rows + _rows_of(sight.explanation)


def _rows_of(explanation: Explanation) -> Rows:
    rows = [("class", _class(explanation))]
    if explanation.probability is not None:
        rows.append(("probability", f"{explanation.probability:.3g}"))
    if explanation.predicted is not None and explanation.predicted != explanation.cls:
        named = "" if explanation.predicted_label is None else f" ({explanation.predicted_label})"
        rows.append(("predicted", f"{explanation.predicted}{named}"))
    h, w = explanation.grid
    rows += [
        ("layer", explanation.layer),
        ("grid", f"{h}×{w}"),
        ("method", f"{explanation.method}, {explanation.engine}, {explanation.device}"),
        ("evidence", f"{explanation.evidence:.4g}" if explanation.evidence > 0 else "none: the map is zero"),
    ]
    return rows


def _class(explanation: Explanation) -> str:
    if explanation.cls is None:
        return "a callable's score"
    return f"{explanation.cls}" + ("" if explanation.label is None else f" ({explanation.label})")


def _overlay(sight: Sight) -> npt.NDArray[np.uint8]:
    """The map over what the model saw, the region outlined; uint8 (H, W, 3)."""
    explanation = sight.explanation
    height, width = panel_size(explanation.size, _LARGEST)
    drawn = blend(panel_of(explanation.image, height, width), fitted(explanation.cam, height, width))
    return drawn if sight.place is None else outline(drawn, mask_of(sight))


def _overlay_width(sight: Sight) -> int:
    """Pixels of a notebook that an overlay takes across, so that none is higher than a table beside it need be."""
    height, width = sight.explanation.size
    return max(1, round(320 * min(1.0, width / height)))


def _block(figures: list[str], heading: str, rows: Rows) -> str:
    cells = "".join(
        f'<tr style="background:transparent"><th style="{_CELL};font-weight:normal;opacity:.7">{_text(name)}</th>'
        f'<td style="{_CELL};overflow-wrap:anywhere">{_text(text)}</td></tr>'
        for name, text in rows
    )
    # The two class names are MathJax's, for text in which dollar signs and backslashes mean nothing.
    return (
        '<div class="tex2jax_ignore mathjax_ignore" style="display:flex;flex-wrap:wrap;gap:20px;'
        f'align-items:flex-start;color:inherit">{"".join(figures)}<div style="flex:1 1 280px;max-width:640px">{heading}'
        '<table style="border-collapse:collapse;margin:0;border:0;font-size:inherit">'
        f"<tbody>{cells}</tbody></table></div></div>"
    )


def _figure(rgb: npt.NDArray[np.uint8], said: str, width: int) -> str:
    data = base64.b64encode(encode_png(rgb)).decode("ascii")
    return (
        f'<img alt="{_text(said)}" title="{_text(said)}" src="data:image/png;base64,{data}" '
        f'style="width:{width}px;max-width:100%;height:auto;margin:0">'
    )


def _text(text: str) -> str:
    """Text for HTML, in an element or an attribute; characters that would not be seen are spelt out."""
    return html.escape(printable(text), quote=True)
