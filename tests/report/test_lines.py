"""Lines after they were written: the coloured map in place of the plain one, and ASCII where there is no Unicode."""

from __future__ import annotations

import pytest

from pytest_gradcam.report.lines import in_ascii, recolour
from pytest_gradcam.report.maps import plain_map
from pytest_gradcam.report.summary import bar
from pytest_gradcam.report.terminal import failure_text
from tests.report.synthetic import box_mask, corner_map, verdict

PLAIN = ["│  .:│", "│ :+@│"]
COLOURED = ["│<1>│", "│<2>│"]


def test_the_map_is_replaced_and_its_indent_kept() -> None:
    text = "E   first line\nE     │  .:│\nE     │ :+@│\nE   last line"
    assert recolour(text, PLAIN, COLOURED) == "E   first line\nE     │<1>│\nE     │<2>│\nE   last line"


def test_pytests_own_colour_ends_where_the_map_begins() -> None:
    text = "\x1b[1m\x1b[31mE     │  .:│\x1b[0m\n\x1b[1m\x1b[31mE     │ :+@│\x1b[0m"
    assert recolour(text, PLAIN, COLOURED) == ("\x1b[1m\x1b[31mE     \x1b[0m│<1>│\n\x1b[1m\x1b[31mE     \x1b[0m│<2>│")


def test_every_place_where_the_map_is_shown_is_replaced() -> None:
    text = "\n".join([*PLAIN, "between", *(f"    {line}" for line in PLAIN)])
    assert recolour(text, PLAIN, COLOURED) == "│<1>│\n│<2>│\nbetween\n    │<1>│\n    │<2>│"


@pytest.mark.parametrize("text", ["", "│  .:│", "│  .:│\nsomething\n│ :+@│", "│ :+@│\n│  .:│", "│  .:│ \n│ :+@│ "])
def test_text_without_the_whole_map_is_left_alone(text: str) -> None:
    assert recolour(text, PLAIN, COLOURED) == text


def test_without_a_map_nothing_is_replaced() -> None:
    assert recolour("one\ntwo", [], []) == "one\ntwo"


def test_whatever_we_draw_has_an_ascii_spelling() -> None:
    drawn = [
        failure_text(verdict(), "here.png"),
        *plain_map(corner_map(), box_mask()),
        *(
            bar({"metric": "calibrated_energy", "chance": 0.0, "threshold": 0.15, "value": value / 100})
            for value in range(-120, 120)
        ),
        "… and 5 more",
    ]
    for text in drawn:
        assert in_ascii(text).isascii()


def test_the_ascii_spelling_keeps_the_maps_width() -> None:
    for line in plain_map(corner_map(), box_mask()):
        assert len(in_ascii(line)) == len(line)


def test_letters_are_not_ours_to_respell() -> None:
    assert in_ascii("Größe │ 猫") == "Größe | 猫"
