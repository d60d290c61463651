"""HTML of a run, for notebooks."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from densemble.markup import Markup, escape
from densemble.notebook import card, facts, sentence, table


def run_html(run: Any) -> str:
    """Return the leaderboard of a :class:`Run`, the scores of its last assembly, and links to its files."""
    title, shown = f"Run {run.folder.path}: {run.task.name}", sentence("no member is trained yet")
    if run.trained():
        leaderboard = run.leaderboard()
        columns = [_column(leaderboard[name].tolist()) for name in leaderboard.columns]
        rows = zip(map(str, leaderboard.index), *columns, strict=True)
        shown = table(["name", *map(str, leaderboard.columns)], rows)
    files = {"report": run.folder.report, "ensemble": run.folder.artifact}
    links = {text: _link(path) for text, path in files.items() if path.is_file()}
    return card(title, shown, *map(sentence, run.cross_fitted()), facts({**links, "data": run.data_path}))


def _column(values: Sequence[float]) -> list[str]:
    """Return numbers as text, without decimals if all are integers; empty for NaN."""
    known = [value for value in values if value == value]
    digits = 0 if all(float(value).is_integer() for value in known) else 4 if max(map(abs, known)) < 10 else 1
    return [f"{value:,.{digits}f}" if value == value else "" for value in values]


def _link(path: Path) -> Markup:
    resolved = path.resolve()
    inside = resolved.is_relative_to(Path.cwd())
    address = os.path.relpath(resolved) if inside else resolved.as_uri()
    return Markup(f'<a href="{escape(address)}" target="_blank" style="color:inherit">{escape(path)}</a>')
