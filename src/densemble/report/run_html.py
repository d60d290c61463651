"""HTML of a run, for notebooks."""

import os
from pathlib import Path
from typing import Any

from densemble.notebook import Markup, card, escape, facts, sentence, table


def run_html(run: Any) -> str:
    """Return the leaderboard of a :class:`Run`, the scores of its last assembly, and links to its files."""
    title, shown = f"Run {run.folder.path}: {run.task.name}", sentence("no member is trained yet")
    if run.trained():
        leaderboard = run.leaderboard()
        rows = [[str(name), *(_cell(value) for value in row)] for name, *row in leaderboard.itertuples()]
        shown = table(["name", *map(str, leaderboard.columns)], rows)
    files = {"report": run.folder.report, "ensemble": run.folder.artifact}
    links = {text: _link(path) for text, path in files.items() if path.is_file()}
    return card(title, shown, *map(sentence, run.cross_fitted()), facts({**links, "data": run.data_path}))


def _cell(value: float) -> str:
    if value != value:
        return ""
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 1 else f"{value:.4g}"


def _link(path: Path) -> Markup:
    resolved = path.resolve()
    inside = resolved.is_relative_to(Path.cwd())
    address = os.path.relpath(resolved) if inside else resolved.as_uri()
    return Markup(f'<a href="{escape(address)}" target="_blank">{escape(path)}</a>')
