"""Colour maps: the class of each colour in a colour-coded mask."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from densemble.data_options import ColourNames
from densemble.errors import DataError
from densemble.input_files import expanded
from densemble.untrusted import MOST_DATA_BYTES, Unreadable, decoded, parse_json, read_regular

Colour = tuple[int, int, int]
ColourMap = dict[Colour, int]
_NUMBERS = r"(?P<red>\d{1,3})[\s,;]+(?P<green>\d{1,3})[\s,;]+(?P<blue>\d{1,3})"
_FORMS = (
    rf"(?P<name>[^:]+):{_NUMBERS}:",  # CVAT: name:r,g,b:parts:actions
    rf"{_NUMBERS}[\s,;]+(?P<name>.*[^\d\s,;].*)$",
    rf"(?P<name>.*[^\d\s,;].*?)[\s,;:]+{_NUMBERS}$",
)
_HOW = "write one line 'red,green,blue,name' per class, or a JSON object name -> [red, green, blue]"


def make_color_map(given: str | ColourNames, folder: Path) -> tuple[ColourMap, tuple[str, ...]]:
    """Class number by colour, and the names of the classes in the order of their numbers.

    Several colours of the same name are one class.

    Args:
        given: ``[red, green, blue]``, a list of such colours, or ``"#rrggbb"`` by name; or a file: JSON with the same
            contents, CSV ``name,r,g,b``, CamVid's ``label_colors.txt`` (``r g b name``), or CVAT's ``labelmap.txt``
            (``name:r,g,b::``).
        folder: folder in which a relative file is searched after the working folder.

    Raises:
        DataError: a file cannot be read, a colour is invalid, or a colour has two classes.
    """
    pairs = _read(_find(given, folder)) if isinstance(given, str) else _named_colours(given)
    names: list[str] = []
    colours: ColourMap = {}
    for name, value in pairs:
        colour = _colour(value, name)
        if name not in names:
            names.append(name)
        number = names.index(name)
        if colours.setdefault(colour, number) != number:
            raise DataError(
                f"colour {list(colour)} stands for '{names[colours[colour]]}' and '{name}'; give them different colours"
            )
    if not colours:
        raise DataError(f"the colour map names no colour; {_HOW}")
    return colours, tuple(names)


def _named_colours(given: ColourNames) -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for name, value in given.items():
        several = isinstance(value, list | tuple) and len(value) > 0 and isinstance(value[0], list | tuple)
        pairs += [(name, colour) for colour in value] if several else [(name, value)]
    return pairs


def _find(name: str, folder: Path) -> Path:
    for path in (expanded(name), folder / name):
        if path.exists() and not path.is_dir():
            return path
    raise DataError(f"no colour map at '{name}' or in '{folder}'; {_HOW}")


def _read(path: Path) -> list[tuple[str, Sequence[int] | str]]:
    try:
        text = decoded(read_regular(path, MOST_DATA_BYTES))
    except (OSError, Unreadable) as error:
        raise DataError(f"cannot read the colour map '{path}': {error}; {_HOW}") from error
    if path.suffix.lower() == ".json":
        try:
            values = parse_json(text)
            return [(str(name), colour) for name, colour in values.items()]
        except (ValueError, AttributeError) as error:
            raise DataError(f"colour map '{path}' is no JSON object: {error}; {_HOW}") from error
    rows: list[tuple[str, Sequence[int] | str]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        row = _parse_line(line.strip())
        if row is not None:
            rows.append(row)
        elif rows or re.search(r"\d", line):  # otherwise it is the header of a CSV
            raise DataError(f"line {number} of the colour map '{path}' has no three numbers and a name; {_HOW}")
    return rows


def _parse_line(line: str) -> tuple[str, Sequence[int]] | None:
    """Name and colour in a line, in any order; ``None`` if the line has another form."""
    for form in _FORMS:
        match = re.match(form, line)
        if match is not None:
            name = match["name"].strip(" \t\"'")
            return name, [int(match[colour]) for colour in ("red", "green", "blue")]
    return None


def _colour(value: Sequence[int] | str, name: str) -> Colour:
    if isinstance(value, str) and re.fullmatch(r"#?[0-9a-fA-F]{6}", value):
        digits = value.removeprefix("#")
        return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:], 16)
    if isinstance(value, list | tuple) and len(value) == 3 and all(v in range(256) for v in value):
        return int(value[0]), int(value[1]), int(value[2])
    raise DataError(f"colour {value!r} of '{name}' is invalid; write [red, green, blue] from 0 to 255, or '#rrggbb'")
