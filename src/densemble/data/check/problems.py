"""Problems: what a data check reports, each with its remedy."""

import glob
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["error", "warning"]
_LISTED = 5


@dataclass(frozen=True)
class Problem:
    """One problem of a data set.

    Attributes:
        kind: short and stable name; problems of the same kind are shown together.
        file: the file or folder that has the problem.
        message: description of the problem.
        remedy: how to fix it, if possible with ``--set``.
        severity: an ``error`` spoils the training or the score; a ``warning`` may be intended.
        split: split of the pair.
        pair: name of the pair, if leaving it out solves the problem.
        partner: the other file, if the problem concerns two files.
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
    """The command-line setting that leaves out one pair."""
    return f"--set 'data.leave_out={json.dumps([glob.escape(name)], ensure_ascii=False)}'"


def message_and_remedy(error: Exception, remedy: str = "replace the file, or remove it") -> tuple[str, str]:
    """Splits an error text at its last semicolon into message and remedy; without a semicolon, ``remedy`` is used."""
    message, _, remedy_in_text = str(error).rpartition("; ")
    return (message, remedy_in_text) if message else (str(error), remedy)


def in_order(problems: Sequence[Problem]) -> list[Problem]:
    """Problems grouped by kind, errors before warnings; kinds keep the order of their first occurrence."""
    kinds = list(dict.fromkeys((problem.severity, problem.kind) for problem in problems))
    kinds.sort(key=lambda key: key[0] == "warning")
    return sorted(problems, key=lambda problem: kinds.index((problem.severity, problem.kind)))


@dataclass(frozen=True)
class Group:
    """Problems of the same kind and severity, ready to be shown.

    Attributes:
        kind, severity: shared by all problems.
        problems: the fields of each :class:`Problem` as plain values.
    """

    kind: str
    severity: Severity
    problems: list[dict[str, Any]]

    @property
    def remedy(self) -> str:
        """The shared remedy, or the first one with a note that the others are similar."""
        first: str = self.problems[0]["remedy"]
        if len({problem["remedy"] for problem in self.problems}) == 1:
            return first
        leave_out_all = ", or all at once with --leave-out FILE" if self.problems[0]["severity"] == "error" else ""
        return f"{first}; the others similarly{leave_out_all}"

    def lines(self) -> list[str]:
        """Lines of text: kind and number of problems, the first messages, the remedy."""
        messages = [f"  {problem['message']}" for problem in self.problems[:_LISTED]]
        if len(self.problems) > _LISTED:
            messages.append(f"  and {len(self.problems) - _LISTED} more")
        return [f"{self.severity}: {self.kind} ({len(self.problems)})", *messages, f"  remedy: {self.remedy}"]


def group(problems: Sequence[dict[str, Any]]) -> list[Group]:
    """Groups the problems in the facts of a check by kind and severity, in their order."""
    groups: dict[tuple[str, Severity], list[dict[str, Any]]] = {}
    for problem in problems:
        groups.setdefault((problem["kind"], problem["severity"]), []).append(problem)
    return [Group(kind, severity, members) for (kind, severity), members in groups.items()]
