"""The report of a run: one self-contained page that says what was chosen, what it is worth, and why."""

from collections.abc import Callable, Sequence
from pathlib import Path

from densemble.report import choice_sections, detail_sections, trust_sections
from densemble.report.answer import answer, headline, warnings
from densemble.report.html_page import Values, escape, write_page
from densemble.report.strips import ImageStrip

SECTIONS: dict[str, tuple[str, Callable[[Values], str]]] = {
    "strategies": ("Ways of choosing", choice_sections.strategies),
    "rules": ("Ways of combining", choice_sections.rules),
    "members": ("Members", choice_sections.members),
    "pareto": ("Score against time", choice_sections.pareto),
    "error_correlation": ("Who errs with whom", detail_sections.error_correlation),
    "per_class": ("Classes", detail_sections.per_class),
    "calibration": ("Calibration", trust_sections.calibration),
    "risk_coverage": ("Risk and coverage", trust_sections.risk_coverage),
    "guarantee": ("Guarantee", trust_sections.guarantee),
    "disagreement": ("Where the members disagree", detail_sections.disagreement),
    "curves": ("Training", detail_sections.curves),
}
"""Key of the analysis -> title and how it is drawn, in the order of the page."""


def write_report(path: Path, analysis: Values, strips: Sequence[ImageStrip]) -> Path:
    """Writes one self-contained HTML page: no network, no script, light and dark.

    Args:
        path: HTML file.
        analysis: plain values, as in a run's ``analysis.json``; a section whose key is absent is left out.
        strips: images to look at, in this order.

    Returns:
        ``path``.

    Raises:
        ResourceError: the file cannot be written.
    """
    shown = {key: (title, draw(analysis)) for key, (title, draw) in SECTIONS.items() if analysis.get(key)}
    if strips:
        shown["pictures"] = ("Images", detail_sections.images(strips, analysis))
    links = "".join(f'<a href="#{key}">{escape(title)}</a> ' for key, (title, _) in shown.items())
    parts = [headline(analysis), answer(analysis), warnings(analysis), f"<nav>{links}</nav>" if links else ""]
    parts += [
        f'<section id="{key}">\n<h2>{escape(title)}</h2>\n{body}\n</section>' for key, (title, body) in shown.items()
    ]
    write_page(path, f"Report of {analysis['run']}", "\n".join(part for part in parts if part))
    return path
