"""Properties of JUnit XML: which there are, how they are spelt, and that any XML parser reads them back."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

import pytest

from pytest_gradcam.report.junit import properties
from pytest_gradcam.report.records import to_record
from tests.report.hostile_texts import HOSTILE
from tests.report.synthetic import explanation, verdict


def made(**changes: Any) -> dict[str, Any]:
    return {**to_record(verdict(), "test_a.py::test_it"), "overlay": "gradcam-report/a.png", **changes}


def test_all_that_a_verdict_has() -> None:
    assert properties(made()) == [
        ("gradcam_assertion", "assert_attention_in_region"),
        ("gradcam_outcome", "failed"),
        ("gradcam_metric", "calibrated_energy"),
        ("gradcam_value", "-0.26"),
        ("gradcam_threshold", "0.15"),
        ("gradcam_chance", "0.0"),
        ("gradcam_class", "3"),
        ("gradcam_label", "rocket"),
        ("gradcam_layer", "stages.3"),
        ("gradcam_method", "grad-cam"),
        ("gradcam_message", "class 3 (rocket) is not explained by the box: calibrated energy -0.26, needs 0.15"),
        ("gradcam_overlay", "gradcam-report/a.png"),
    ]


def test_a_second_verdict_of_a_test_has_its_number_in_the_names() -> None:
    names = [name for name, _ in properties(made(), 2)]
    assert names == [f"{name}_2" for name, _ in properties(made())]
    assert not {*names} & {name for name, _ in properties(made(), 3)}


def test_what_a_verdict_has_not_is_left_out() -> None:
    record = to_record(verdict(explanation=explanation(cls=None, label=None)), "t")
    assert {name for name, _ in properties(made())} - {name for name, _ in properties(record)} == {
        "gradcam_class",
        "gradcam_label",
        "gradcam_overlay",
    }
    without = to_record(verdict(sights=()), "t")
    assert "gradcam_layer" not in dict(properties(without))


def test_numbers_are_as_they_are() -> None:
    value = dict(properties(made(value=0.1 + 0.2)))["gradcam_value"]
    assert float(value) == 0.1 + 0.2
    assert dict(properties(made(cls=0)))["gradcam_class"] == "0"


@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
def test_any_xml_parser_reads_them_back(hostile: str) -> None:
    record = made(label=hostile, message=hostile, layer=hostile, overlay=hostile)
    spelt = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in hostile)
    for name, value in properties(record):
        xml = f"<property name={quoteattr(name)} value={quoteattr(value)}/>".encode()
        read = ElementTree.fromstring(xml)
        assert read.attrib == {"name": name, "value": value}
        if name in ("gradcam_label", "gradcam_message"):
            assert value == spelt
