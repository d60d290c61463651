"""Read figures from result files: find the value at a path, format it, and record it."""

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).resolve().parent / "results"
SEPARATOR = " > "
"""Separates the steps of a path: keys of result files contain dots, commas and slashes."""


class FigureError(Exception):
    """A result file or a path in it is missing, or a figure cannot be formatted as its marker requests."""


@dataclass(frozen=True)
class Figure:
    """One number of a page, as text, with its value in the result file."""

    text: str
    source: str
    value: Any


FUNCTIONS: dict[str, Callable[[Sequence[Any]], Any]] = {
    "mean": statistics.mean,
    "median": statistics.median,
    "min": min,
    "max": max,
    "sum": sum,
    "count": len,
    "ratio": lambda values: values[0] / values[1],
    "difference": lambda values: values[0] - values[1],
}


def only(values: Sequence[Any]) -> Any:
    """The value of a path without a function.

    Raises:
        FigureError: there are several.
    """
    if len(values) != 1:
        raise FigureError(f"{len(values)} values where one is expected; name a function: {', '.join(FUNCTIONS)}")
    return values[0]


@dataclass
class Results:
    """Result files, each read once, and every figure that was read from them."""

    folder: Path = RESULTS
    figures: list[Figure] = field(default_factory=list)
    files: dict[str, Any] = field(default_factory=dict)

    def read(self, file: str) -> Any:
        """The content of a JSON or JSON-lines file, named relative to the folder of results.

        Raises:
            FigureError: there is no such file.
        """
        if file not in self.files:
            path = self.folder / file
            if not path.is_file():
                raise FigureError(f"there is no result file {file}")
            text = path.read_text(encoding="utf-8")
            lines = path.suffix == ".jsonl"
            self.files[file] = [json.loads(line) for line in text.splitlines()] if lines else json.loads(text)
        return self.files[file]

    def values(self, file: str, path: str) -> list[Any]:
        """All values at a path; several where it contains ``*`` or selects several entries of a list.

        Args:
            file: see :meth:`read`.
            path: keys, list indices, ``*`` or ``key=value`` (only entries that have it), joined by ``" > "``.

        Raises:
            FigureError: nothing is there.
        """
        found = [self.read(file)]
        for step in path.split(SEPARATOR):
            found = [inner for value in found for inner in _step(value, step)]
            if not found:
                raise FigureError(f"{file} has nothing at '{step}' of '{path}'")
        return found

    def show(self, file: str, path: str | Sequence[str], form: str, function: str = "") -> str:
        """A value as text, recorded as a figure.

        Args:
            file: see :meth:`read`.
            path: see :meth:`values`; several for a function of several values.
            form: a format specification, after an optional factor: ``.3f``, ``.1%``, ``1000*.0f``; ``s`` for text.
            function: row of :data:`FUNCTIONS`.

        Raises:
            FigureError: nothing is there, or it cannot be written so.
        """
        paths = [path] if isinstance(path, str) else list(path)
        if function and function not in FUNCTIONS:
            raise FigureError(f"no function is named '{function}'; there are: {', '.join(FUNCTIONS)}")
        value = FUNCTIONS.get(function, only)([value for each in paths for value in self.values(file, each)])
        factor, star, specification = form.rpartition("*")
        try:
            text = format(value * float(factor) if star else value, specification)
        except (TypeError, ValueError) as error:
            raise FigureError(f"{file}, '{path}': {value!r} cannot be written as '{form}' ({error})") from None
        source = f"{file}: {function}({'; '.join(paths)})" if function else f"{file}: {paths[0]}"
        self.figures.append(Figure(text, source, value))
        return text


def _step(value: Any, step: str) -> list[Any]:
    if step == "*":
        return list(value.values()) if isinstance(value, dict) else list(value) if isinstance(value, list) else []
    if isinstance(value, dict) and step in value:
        return [value[step]]
    if isinstance(value, list) and step.isdigit():
        return value[int(step) :][:1]
    key, equals, wanted = step.partition("=")
    entries = value if isinstance(value, list) else [value]
    return [entry for entry in entries if equals and isinstance(entry, dict) and _as_text(entry.get(key)) == wanted]


def _as_text(value: Any) -> str:
    """Text as it is, everything else as in JSON: ``true``, ``[360, 480]``."""
    return value if isinstance(value, str) else json.dumps(value)
