"""Legends below drawings: names of classes, and bars of values with their unit."""

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from densemble.inference.drawing.colours import colour_values
from densemble.shapes import Array

Colour = tuple[int, int, int]
_PAPER, _INK = (255, 255, 255), (24, 24, 24)
_LEAST_WIDTH = 120
_LEAST_LETTER, _LETTERS = 12, 40
"""Smallest height of a letter in pixels, and its share of the width of larger drawings."""
_LONGEST_NAME = 40


@dataclass(frozen=True)
class Bar:
    """Colours of values.

    Attributes:
        label: meaning of the values, with their unit.
        low: value of the first colour.
        high: value of the last colour.
        colours: colour map, see :func:`densemble.inference.drawing.colours.colour_values`.
    """

    label: str
    low: float
    high: float
    colours: str


@dataclass(frozen=True)
class Legend:
    """What the colours of a drawing mean.

    Attributes:
        entries: names with their colours.
        bar: colours of values; ``None``: there are only names.
        note: text below names and bar.
    """

    entries: tuple[tuple[str, Colour], ...] = ()
    bar: Bar | None = None
    note: str = ""


def add_legend(pixels: Array, legend: Legend) -> Array:
    """Draw a legend below a drawing.

    Args:
        pixels: uint8 ``(H, W, 3)``.
        legend: an empty legend adds nothing.

    Returns:
        uint8 ``(h, w, 3)`` with the unchanged drawing at the top left; w > W if the drawing is less than 120 wide.
    """
    if legend == Legend():
        return pixels
    height, width = pixels.shape[:2]
    band = _band(legend, width)
    drawn = np.full((height + len(band), band.shape[1], 3), _PAPER, np.uint8)
    drawn[:height, :width] = pixels
    drawn[height:] = band
    return drawn


@lru_cache(maxsize=8)  # images of a folder often have the same size and classes
def _band(legend: Legend, width: int) -> Array:
    page = _Page(max(width, _LEAST_WIDTH), max(_LEAST_LETTER, width // _LETTERS))
    if legend.bar is not None:
        page.add_bar(legend.bar)
    page.add_entries(legend.entries)
    page.add_text(legend.note)
    return page.band()


def drawable_name(name: str, number: int) -> str:
    """Name of a class for a legend, shortened to 40 letters; ``class NUMBER`` if the font lacks its letters."""
    drawn = _drawable(name)
    if "\N{REPLACEMENT CHARACTER}" in drawn:
        return f"class {number}"
    return drawn if len(drawn) <= _LONGEST_NAME else f"{drawn[: _LONGEST_NAME - 3]}..."


class _Page:
    """A band of lines below a drawing, filled from top to bottom; ``letter`` is the size of its letters in pixels."""

    def __init__(self, width: int, letter: int) -> None:
        self._width, self._letter, self._font = width, letter, _font(letter)
        self._margin, self._line = letter // 2, round(1.5 * letter)
        self._top = self._margin
        self._texts: list[tuple[int, int, str]] = []
        self._blocks: list[tuple[int, int, Array]] = []

    def band(self) -> Array:
        """The lines as pixels, uint8 ``(h, width, 3)``."""
        image = Image.new("RGB", (self._width, self._top + self._margin), _PAPER)
        for left, top, block in self._blocks:
            image.paste(Image.fromarray(block), (left, top))
        draw = ImageDraw.Draw(image)
        for left, top, text in self._texts:
            draw.text((left, top), text, fill=_INK, font=self._font)
        return np.asarray(image)

    def add_text(self, text: str) -> None:
        """Add a text, broken into lines between its words."""
        line = ""
        for word in _drawable(text).split():
            longer = f"{line} {word}".strip()
            if line and self._length(longer) > self._width - 2 * self._margin:
                self._add_line(line)
                longer = word
            line = longer
        if line:
            self._add_line(line)

    def add_bar(self, bar: Bar) -> None:
        """Add the colours from low to high, with their label above them, and their limits and middle below them."""
        self.add_text(bar.label)
        wide = min(self._width - 2 * self._margin, 30 * self._letter)
        ramp = colour_values(np.linspace(0, 1, wide)[None].repeat(self._letter, 0), 0, 1, bar.colours)
        self._blocks.append((self._margin, self._top, ramp))
        self._top += self._letter + self._letter // 4
        for share in (0.0, 0.5, 1.0):
            number = _number(bar.low + share * (bar.high - bar.low), bar.high - bar.low)
            self._texts.append((self._margin + round(share * (wide - self._length(number))), self._top, number))
        self._top += self._line

    def add_entries(self, entries: Sequence[tuple[str, Colour]]) -> None:
        """Add names beside squares, as many in a line as fit."""
        if not entries:
            return
        left = self._margin
        for name, colour in entries:
            wide = 2 * self._letter + self._length(name := _drawable(name))
            if left > self._margin and left + wide > self._width:
                left, self._top = self._margin, self._top + self._line
            self._blocks.append((left, self._top + self._letter // 8, self._square(colour)))
            self._texts.append((left + round(1.3 * self._letter), self._top, name))
            left += wide
        self._top += self._line

    def _square(self, colour: Colour) -> Array:
        square = np.full((self._letter, self._letter, 3), _INK, np.uint8)  # a thin frame, for light colours
        square[1:-1, 1:-1] = colour
        return square

    def _add_line(self, text: str) -> None:
        self._texts.append((self._margin, self._top, text))
        self._top += self._line

    def _length(self, text: str) -> int:
        return round(self._font.getlength(text))


def _number(value: float, width: float) -> str:
    """A value of a bar, with as many digits as tell values apart that differ by a tenth of its width."""
    if value == 0:
        return "0"
    digits = 1 - math.floor(math.log10(width)) if width > 0 else 3
    if abs(value) >= 1e6 or digits > 5:
        return f"{value:.2e}"
    return f"{value:.{max(digits, 0)}f}"


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """DejaVu Sans of matplotlib (Latin, Greek, Cyrillic); without matplotlib, the font of Pillow (ASCII)."""
    matplotlib = find_spec("matplotlib")
    for folder in (matplotlib.submodule_search_locations or ()) if matplotlib is not None else ():
        file = Path(folder) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if file.is_file():
            return ImageFont.truetype(file, size)
    return ImageFont.load_default(size)


@cache
def _has(letter: str) -> bool:
    """Whether the font has a letter: others are all drawn as the same box."""
    font = _font(_LEAST_LETTER)
    return letter == " " or bytes(font.getmask(letter)) != bytes(font.getmask("\U0010ffff"))


def _drawable(text: str) -> str:
    """Text without letters that the font lacks: without their accents, or replaced by U+FFFD."""
    return "".join(_nearest(letter) for letter in unicodedata.normalize("NFC", text))


def _nearest(letter: str) -> str:
    if _has(letter):
        return letter
    plain = "".join(part for part in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(part))
    return plain if plain and all(_has(part) for part in plain) else "\N{REPLACEMENT CHARACTER}"
