"""What a check finds wrong: problems with their remedies."""

import glob
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

Severity = Literal["error", "warning"]
_DAMAGED = "copy it again from where it came from, or leave the pair out: {leave_out}"
_LISTED = 5
_SIGNATURES = (
    b"\x89PNG",
    b"\xff\xd8",
    b"BM",
    b"RIFF",
    b"GIF8",
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"MM\0+",
    b"\x93NUMPY",
    b"PK\x03\x04",
)
"""How files of the formats that can be read begin."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        kind: short and stable name; problems of one kind are shown together.
        file: the file or folder it is about.
        message: what is wrong.
        remedy: what to do, where possible a flag of ``--set``.
        severity: an ``error`` spoils the training or the score; a ``warning`` may be meant.
        split: of the pair.
        pair: name of the pair, where leaving it out would help.
        partner: the other file, where two are compared.
    """

    kind: str
    file: str
    message: str
    remedy: str
    severity: Severity = "error"
    split: str | None = None
    pair: str | None = None
    partner: str | None = None


def leaving_out(name: str) -> str:
    """The flag that leaves out one pair."""
    return f"--set 'data.leave_out={json.dumps([as_pattern(name)], ensure_ascii=False)}'"


def as_pattern(name: str) -> str:
    """The pattern of ``data.leave_out`` that fits one name alone."""
    return glob.escape(name)


def from_error(kind: str, file: Path, error: Exception, remedy: str = "replace the file, or remove it") -> Problem:
    """A problem from an error, which says what is wrong and, after its last semicolon, what to do; else ``remedy``."""
    message, _, told = str(error).rpartition("; ")
    return Problem(kind, str(file), message or str(error), told if message else remedy)


def damage(file: Path, name: str, error: Exception) -> Problem:
    """Why a file cannot be decoded: it is absent, has no bytes, is cut short, or is something else.

    Args:
        file: the file.
        name: of its pair.
        error: what its decoder said.
    """
    remedy = _DAMAGED.format(leave_out=leaving_out(name))
    try:
        with file.open("rb") as stream:
            beginning = stream.read(8)
    except OSError as reason:
        return Problem("unreadable", str(file), f"cannot open '{file}': {reason.strerror or reason}", remedy, pair=name)
    if not beginning:
        return Problem("empty file", str(file), f"'{file}' has no bytes", remedy, pair=name)
    told = from_error("", file, error)
    kind = "damaged" if beginning.startswith(_SIGNATURES) else "unreadable"
    return replace(told, kind=kind, remedy=remedy, pair=name)


def in_split(problems: Iterable[Problem], split: str) -> list[Problem]:
    """The problems, each with the split it was found in."""
    return [replace(problem, split=split) for problem in problems]


def in_order(problems: Sequence[Problem]) -> list[Problem]:
    """Errors before warnings, and those of one kind together, in the order in which the kinds were found."""
    kinds = list(dict.fromkeys((problem.severity, problem.kind) for problem in problems))
    kinds.sort(key=lambda key: key[0] == "warning")
    return sorted(problems, key=lambda problem: kinds.index((problem.severity, problem.kind)))


@dataclass(frozen=True)
class Group:
    """Problems of one kind: the facts of a check, ready to be shown.

    Attributes:
        kind, severity: of all of them.
        problems: each as :class:`Problem` in plain values.
    """

    kind: str
    severity: Severity
    problems: list[dict[str, Any]]

    @property
    def remedy(self) -> str:
        """Of all of them, or of the first where every one has its own."""
        first: str = self.problems[0]["remedy"]
        own = len({problem["remedy"] for problem in self.problems}) > 1
        if not own:
            return first
        left_out = ", or all at once with --leave-out FILE" if self.problems[0]["severity"] == "error" else ""
        return f"{first}; the others alike{left_out}"

    def lines(self) -> list[str]:
        """As text: kind and number, the first messages, the remedy."""
        shown = [f"  {problem['message']}" for problem in self.problems[:_LISTED]]
        if len(self.problems) > _LISTED:
            shown.append(f"  and {len(self.problems) - _LISTED} more")
        return [f"{self.severity}: {self.kind} ({len(self.problems)})", *shown, f"  remedy: {self.remedy}"]


def group(problems: Sequence[dict[str, Any]]) -> list[Group]:
    """The problems of a check's facts by kind, in their order."""
    groups: dict[tuple[str, Severity], list[dict[str, Any]]] = {}
    for problem in problems:
        groups.setdefault((problem["kind"], problem["severity"]), []).append(problem)
    return [Group(kind, severity, members) for (kind, severity), members in groups.items()]
