"""Output of the commands: tables and JSON on stdout, everything else on stderr."""

import json
import logging
import math
import shutil
import sys
import textwrap
from typing import Any

from densemble.terminal import is_terminal, json_text, print_line, print_result


def warn(text: str) -> None:
    """Print text on stderr; in a terminal, words that do not fit into a line begin the next one."""
    if is_terminal(sys.stderr):
        width = shutil.get_terminal_size().columns
        lines = (wrapped(line, width) for line in text.splitlines())
        text = "\n".join(part for parts in lines for part in parts)
    print_line(text, sys.stderr)


def wrapped(line: str, width: int) -> list[str]:
    """Return the parts of a line that fit into ``width`` columns; a longer word, such as a path, is not broken."""
    return textwrap.wrap(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False) or [""]


def print_text(text: str) -> None:
    """Print Markdown on stdout; in a terminal, words that do not fit into a line of text begin the next one."""
    width = shutil.get_terminal_size().columns
    for line in text.splitlines():
        is_text = is_terminal(sys.stdout) and not line.startswith("|")
        print_result("\n".join(wrapped(line, width)) if is_text else line)


def say(line: str) -> None:
    """Print a line on stderr, unless the command is quiet."""
    if not is_quiet():
        warn(line)


def is_quiet() -> bool:
    """Return whether ``--quiet`` was given: only warnings and errors are shown."""
    return not logging.getLogger("densemble").isEnabledFor(logging.INFO)


def print_json(values: Any) -> None:
    """Print one strict JSON value on stdout; NaN and infinity become null."""
    from densemble.storage.runs import strict

    print_result(json_text(json.dumps(strict(values), ensure_ascii=False, indent=2, allow_nan=False)))


def print_table(columns: list[str], rows: list[list[Any]], header: bool = True) -> None:
    """Print aligned columns on stdout, under their names if ``header``: text aligned left, numbers aligned right."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max([len(name), *(len(row[i]) for row in cells)]) for i, name in enumerate(columns)]
    numeric = [all(isinstance(row[i], int | float) or row[i] is None for row in rows) for i in range(len(columns))]
    for line in [columns, *cells] if header else cells:
        aligned = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        )
        print_result("  ".join(aligned).rstrip())


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:z.4f}".rstrip("0").rstrip(".")
    return f"{value:,}" if isinstance(value, int) else str(value)


def print_scores(scores: dict[str, Any]) -> None:
    """Print the scores of an evaluation as a table: the ensemble first, then its members."""
    metrics = [key for key, value in scores.items() if isinstance(value, float)]
    rows = [["ensemble", *(scores[key] for key in metrics)]]
    rows += [[name, *(values.get(key) for key in metrics)] for name, values in scores.get("members", {}).items()]
    print_table(["", *metrics], rows)
