"""What figures are drawn on: a sheet of white paper, text in a font that comes with Pillow, panels, a colour bar.

Knows nothing of maps. Text is data: what would not be printed is spelt out, and what is too long is cut.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import Final, Literal, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from pytest_gradcam.report.lines import in_ascii, printable

Colour: TypeAlias = tuple[int, int, int]
Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont
Picture: TypeAlias = npt.NDArray[np.uint8]

WHITE: Final[Colour] = (255, 255, 255)
INK: Final[Colour] = (28, 30, 34)
GREY: Final[Colour] = (106, 112, 122)
FAINT: Final[Colour] = (235, 237, 240)
ACCENT: Final[Colour] = (196, 74, 8)
BAR: Final[Colour] = (142, 154, 172)

_CRISP: Final = 128  # pictures smaller than this keep their pixels as squares
# For letters that Pillow's own font lacks; Pillow looks where the system keeps fonts.
_FONTS: Final = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "Arial Unicode.ttf",
    "arial.ttf",
    "LiberationSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "msyh.ttc",
    "PingFang.ttc",
)


class Paper:
    """A sheet of paper; positions are pixels from its top left corner."""

    def __init__(self, width: int, height: int) -> None:
        self._image = Image.new("RGB", (width, height), WHITE)
        self._draw = ImageDraw.Draw(self._image)

    @property
    def pixels(self) -> Picture:
        """uint8 (H, W, 3)."""
        return np.asarray(self._image, dtype=np.uint8)

    def text(
        self,
        x: int,
        y: int,
        text: str,
        size: int,
        width: int,
        *,
        colour: Colour = INK,
        align: Literal["left", "right", "middle"] = "left",
    ) -> int:
        """One line of text, cut to `width`; `y` is its baseline, `x` its end on the side of `align`.

        Returns:
            its width, in pixels.
        """
        shown, font = fitted_text(text, size, width)
        anchor = {"left": "ls", "right": "rs", "middle": "ms"}[align]
        self._draw.text((x, y), shown, font=font, fill=colour, anchor=anchor)
        return round(font.getlength(shown))

    def lines(self, x: int, y: int, text: str, size: int, width: int, count: int, *, colour: Colour = INK) -> None:
        """Text on at most `count` lines; `y` is the first line's baseline."""
        for i, line in enumerate(wrapped(text, size, width, count)):
            self.text(x, y + round(1.35 * size * i), line, size, width, colour=colour)

    def panel(self, x: int, y: int, pixels: Picture) -> None:
        """A picture, uint8 (H, W, 3)."""
        self._image.paste(Image.fromarray(pixels), (x, y))

    def box(self, x: int, y: int, width: int, height: int, colour: Colour) -> None:
        """A filled rectangle; nothing where it is empty."""
        if width > 0 and height > 0:
            self._draw.rectangle((x, y, x + width - 1, y + height - 1), fill=colour)


def fitted_size(frame: tuple[int, int], longest: int) -> tuple[int, int]:
    """Height and width of a picture (H, W) whose longer side becomes `longest`."""
    scale = longest / max(frame)
    return max(1, round(frame[0] * scale)), max(1, round(frame[1] * scale))


def resized(image: Picture, height: int, width: int) -> Picture:
    """The picture uint8 (H, W, 3) at another size; small ones keep their pixels as squares."""
    if height <= image.shape[0]:
        how = cv2.INTER_AREA
    else:
        how = cv2.INTER_NEAREST if max(image.shape[:2]) < _CRISP else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (width, height), interpolation=how), dtype=np.uint8)


def fitted_text(text: str, size: int, width: int) -> tuple[str, Font]:
    """The text as it can be drawn within that many pixels, and the font that has its letters."""
    shown, font = _drawable(printable(text), size)
    if font.getlength(shown) <= width:
        return shown, font
    low, high = 0, len(shown)  # how many characters fit before the dots
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if font.getlength(f"{shown[:middle].rstrip()}…") <= width else (low, middle - 1)
    return f"{shown[:low].rstrip()}…", font


def wrapped(text: str, size: int, width: int, count: int) -> list[str]:
    """The text in lines that fit the width, at most so many; the last one says with dots that there was more."""
    words = printable(" ".join(text.split())).split(" ")
    lines = [""]
    for i, word in enumerate(words):
        longer = f"{lines[-1]} {word}".lstrip()
        shown, font = _drawable(longer, size)
        if not lines[-1] or font.getlength(shown) <= width:
            lines[-1] = longer
        elif len(lines) == count:
            lines[-1] = " ".join([lines[-1], *words[i:]])  # which is cut where it is drawn
            break
        else:
            lines.append(word)
    return lines


def _drawable(text: str, size: int) -> tuple[str, Font]:
    own = _own_font(size)
    plain = "".join(letter if _has(own, letter) else in_ascii(letter) for letter in text)
    # The font that lacks the fewest of its letters; the first of equals, and ours is the first.
    fonts = (own, *_system_fonts(size)) if any(not _has(own, letter) for letter in plain) else (own,)
    font = min(fonts, key=lambda font: sum(not _has(font, letter) for letter in plain))
    return "".join(_spelt(font, letter) for letter in plain), font


def _spelt(font: Font, letter: str) -> str:
    """A letter without its accent where the font has that, else its number."""
    if _has(font, letter):
        return letter
    bare = unicodedata.normalize("NFKD", letter)[0]
    return bare if _has(font, bare) else letter.encode("unicode_escape").decode("ascii")


@cache
def _own_font(size: int) -> Font:
    return ImageFont.load_default(size)


@cache
def _system_fonts(size: int) -> tuple[Font, ...]:
    found: list[Font] = []
    for name in _FONTS:
        try:
            found.append(ImageFont.truetype(name, size))
        except OSError:  # it is not there
            continue
    return tuple(found)


@cache
def _has(font: Font, letter: str) -> bool:
    """Whether a font can draw a letter: what it cannot, it draws as it draws what is no character at all."""
    if letter.isspace():
        return True
    mask, missing = font.getmask(letter), font.getmask("\uffff")
    return (mask.size, bytes(mask)) != (missing.size, bytes(missing))
