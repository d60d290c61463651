"""Reading the texts beside the images: lists, tables, JSON and XML that anybody may have written."""

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn
from xml.etree import ElementTree
from xml.parsers import expat

from densemble.errors import DataError


@contextmanager
def well_formed(path: Path, what: str) -> Iterator[None]:
    """Turns what goes wrong while a parsed file is taken apart into a DataError that names the file.

    Raises:
        DataError: something is absent from the file, or of another kind than the format says.
    """
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(f"'{path}' is no {what} that can be read ({reason}); export it again") from error


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte order mark.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read '{path}' ({error}); save it as UTF-8 text") from error


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank, stripped.

    Raises:
        DataError: it cannot be read.
    """
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        DataError: it cannot be read or is no JSON.
    """
    return _parse_json(path, read_text(path), "")


def read_json_lines(path: Path) -> list[Any]:
    """What a file of one JSON value a line holds.

    Raises:
        DataError: it cannot be read, or a line is no JSON.
    """
    lines = read_text(path).splitlines()
    return [_parse_json(path, line, f" line {number}") for number, line in enumerate(lines, 1) if line.strip()]


def _parse_json(path: Path, text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"'{path}'{where} is no JSON that can be read ({error}); export it again") from error


def read_table(path: Path) -> list[list[str]]:
    """The rows of a CSV file, split at commas, semicolons or tabs: whichever its first line has most of.

    Raises:
        DataError: it cannot be read or is no CSV.
    """
    text = read_text(path)
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    try:
        rows = list(csv.reader(text.splitlines(), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise DataError(f"'{path}' is no CSV that can be read ({error}); save it again as CSV") from error
    return [[cell.strip() for cell in row] for row in rows if any(cell.strip() for cell in row)]


def read_xml(path: Path) -> ElementTree.Element:
    """The root of an XML file. One with a document type is refused: entities could read other files or fill the memory.

    Raises:
        DataError: it cannot be read, is no XML, or has a document type.
    """
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data

    def refuse(*declaration: object) -> NoReturn:
        raise DataError(f"'{path}' has a DOCTYPE, which annotation files do not need; remove it or export again")

    parser.StartDoctypeDeclHandler = refuse
    try:
        with path.open("rb") as file:
            parser.ParseFile(file)
        return builder.close()
    except (OSError, expat.ExpatError, ValueError) as error:
        raise DataError(f"'{path}' is no XML that can be read ({error}); export it again") from error
