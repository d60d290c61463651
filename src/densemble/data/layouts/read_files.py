"""Read untrusted text files beside the images: lists, tables, JSON and XML."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn
from xml.etree import ElementTree
from xml.parsers import expat

from densemble.errors import DataError
from densemble.input_files import open_regular
from densemble.untrusted import MOST_DATA_BYTES, Unreadable, decoded, excerpt, parse_json, read_regular

_LONGEST_CELL = 4096
"""Longest cell of a table, in characters; it is a path or a name."""


@contextmanager
def well_formed(path: Path, what: str) -> Iterator[None]:
    """Turn errors in the structure of a parsed file into a DataError that names the file.

    Raises:
        DataError: a value is missing or has the wrong type.
    """
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        reason = excerpt(f"no {error}" if isinstance(error, KeyError) else str(error))
        raise DataError(f"'{path}' is not a valid {what} ({reason}); export it again") from error


def read_text(path: Path) -> str:
    """Read a UTF-8 file with or without a byte order mark.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        return decoded(read_regular(path, MOST_DATA_BYTES))
    except (OSError, Unreadable) as error:
        raise DataError(f"cannot read '{path}' ({error}); save it as UTF-8 text") from error


def read_lines(path: Path) -> list[str]:
    """Read the lines of a text file, stripped, without blank lines.

    Raises:
        DataError: the file cannot be read.
    """
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        DataError: the file cannot be read or is not JSON.
    """
    return _parse_json(path, read_text(path), "")


def read_json_lines(path: Path) -> list[Any]:
    """Read a file with one JSON value per line.

    Raises:
        DataError: the file cannot be read, or a line is not JSON.
    """
    lines = read_text(path).splitlines()
    return [_parse_json(path, line, f" line {number}") for number, line in enumerate(lines, 1) if line.strip()]


def _parse_json(path: Path, text: str, where: str) -> Any:
    try:
        return parse_json(text, depth=None)
    except Unreadable as error:
        raise DataError(f"'{path}'{where} is not valid JSON ({error}); export it again") from error


def read_table(path: Path) -> list[list[str]]:
    """Read the rows of a CSV file.

    The delimiter is the comma, semicolon or tab, whichever is most frequent in the first line.

    Raises:
        DataError: the file cannot be read or is not CSV.
    """
    text = read_text(path)
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    try:
        rows = list(csv.reader(text.splitlines(), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise DataError(f"'{path}' is not valid CSV ({error}); save it again as CSV") from error
    longest = max((len(cell) for row in rows for cell in row), default=0)
    if longest > _LONGEST_CELL:
        raise DataError(f"'{path}' has a cell of {longest} characters, more than {_LONGEST_CELL}; check its quotes")
    return [[cell.strip() for cell in row] for row in rows if any(cell.strip() for cell in row)]


def read_xml(path: Path) -> ElementTree.Element:
    """Read the root element of an XML file.

    Files with a document type are rejected because entities could read other files or exhaust the memory.

    Raises:
        DataError: the file cannot be read, is not XML, or has a document type.
    """
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data

    def reject(*declaration: object) -> NoReturn:
        raise DataError(f"'{path}' has a DOCTYPE, which annotation files do not need; remove it or export again")

    parser.StartDoctypeDeclHandler = reject
    try:
        with open_regular(path) as file:
            parser.ParseFile(file)
        return builder.close()
    except (OSError, expat.ExpatError, ValueError) as error:
        raise DataError(f"'{path}' is not valid XML ({error}); export it again") from error
