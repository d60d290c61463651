"""Read class names and mask colours from the files that annotation tools write beside the images."""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from densemble.data.layouts.read_files import read_lines, read_table, well_formed
from densemble.errors import DataError
from densemble.input_files import is_no_folder

Color = tuple[int, int, int]
VOID = 255
VOID_COLOR: Color = (224, 224, 192)  # the border of objects in Pascal VOC


@dataclass(frozen=True)
class Classes:
    """Class names by number, and mask colour -> class number if the masks are colour-coded."""

    names: tuple[str, ...] | None = None
    colors: dict[Color, int] | None = None


def read_classes(folder: Path) -> Classes:
    """Read ``classes.txt`` and ``class_dict.csv`` or ``labelmap.txt``; the first existing file defines the order.

    Raises:
        DataError: a file cannot be read, the files name different classes, or a name occurs twice.
    """
    names = tuple(read_lines(folder / "classes.txt")) if is_no_folder(folder / "classes.txt") else None
    require_distinct(names or (), folder / "classes.txt")
    if is_no_folder(folder / "class_dict.csv"):
        file, colors = folder / "class_dict.csv", _read_class_dict(folder / "class_dict.csv")
    elif is_no_folder(folder / "labelmap.txt"):
        file, colors = folder / "labelmap.txt", _read_labelmap(folder / "labelmap.txt")
    else:
        return Classes(names)
    known = [name for name, color in colors if color != VOID_COLOR]
    if names is not None and set(names) != set(known):
        raise DataError(f"'{folder / 'classes.txt'}' and '{file}' name different classes; make them agree")
    names = names or tuple(known)
    numbers = {name: number for number, name in enumerate(names)}
    return Classes(names, {color: numbers.get(name, VOID) for name, color in colors})


def _read_class_dict(path: Path) -> list[tuple[str, Color]]:
    """Read rows of ``name,r,g,b`` below a header."""
    with well_formed(path, "table of name, r, g, b"):
        return _unique(path, ((row[0], _color(row[1:4])) for row in read_table(path)[1:]))


def _read_labelmap(path: Path) -> list[tuple[str, Color]]:
    """Read lines of ``name:r,g,b:parts:actions``; ``#`` starts a comment."""
    with well_formed(path, "list of name:r,g,b:parts:actions"):
        lines = (line.split(":") for line in read_lines(path) if not line.startswith("#"))
        return _unique(path, ((line[0].strip(), _color(line[1].split(","))) for line in lines))


def _color(cells: Sequence[str]) -> Color:
    red, green, blue = (int(cell) for cell in cells)
    if not all(0 <= value <= 255 for value in (red, green, blue)):
        raise ValueError(f"{red},{green},{blue} is not a colour in 0..255")
    return red, green, blue


def _unique(path: Path, rows: Iterable[tuple[str, Color]]) -> list[tuple[str, Color]]:
    classes = list(rows)
    if any(len(set(column)) < len(classes) for column in zip(*classes, strict=True)):
        raise DataError(f"'{path}' gives two classes the same name or colour; make them different")
    return classes


def class_key(name: str) -> str:
    """Normalize a class name for comparison: composed Unicode, and "background" in lower case.

    Tools write "background" with upper or lower case.
    """
    plain = unicodedata.normalize("NFC", name).strip()
    return "background" if plain.lower() == "background" else plain


def require_distinct(names: Sequence[str], source: object) -> None:
    """Check that class names are distinct.

    Raises:
        DataError: two classes share a name; the message gives the name and both numbers.
    """
    first: dict[str, int] = {}
    for number, name in enumerate(names):
        before = first.setdefault(class_key(name), number)
        if before != number:
            raise DataError(
                f"'{source}' names '{name}' twice, as class {before} and as class {number}; give each class a "
                "different name"
            )


def with_background(names: Iterable[str]) -> tuple[str, ...]:
    """Class names with the background as class 0; the other classes keep their order."""
    return ("background", *(name for name in names if name.lower() != "background"))


def class_numbers(classes: Sequence[str]) -> dict[str, int]:
    """Numbers of the classes in the names from :func:`with_background`."""
    return {name: number for number, name in reversed(list(enumerate(classes)))}


def class_number(name: str, numbers: Mapping[str, int]) -> int:
    """Number of a class from :func:`class_numbers`.

    Raises:
        ValueError: unknown class.
    """
    if name.lower() == "background":
        return 0
    if name not in numbers:
        known = sorted(numbers, key=lambda known: numbers[known])
        raise ValueError(f"'{name}' is not one of the classes {', '.join(known[:20])}")
    return numbers[name]
