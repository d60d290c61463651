"""The report of a run: one self-contained HTML page that explains the selection and the scores."""

from collections.abc import Callable, Sequence
from pathlib import Path

from densemble.report import choice_sections, detail_sections, trust_sections
from densemble.report.answer import headline, overview, warnings
from densemble.report.html_page import Values, escape, write_page
from densemble.report.strips import ImageStrip

SECTIONS: dict[str, tuple[str, Callable[[Values], str]]] = {
    "strategies": ("Selection strategies", choice_sections.strategies),
    "rules": ("Combination rules", choice_sections.rules),
    "members": ("Members", choice_sections.members),
    "pareto": ("Score against time", choice_sections.pareto),
    "error_correlation": ("Error correlation", detail_sections.error_correlation),
    "per_class": ("Scores per class", detail_sections.per_class),
    "calibration": ("Calibration", trust_sections.calibration),
    "risk_coverage": ("Risk and coverage", trust_sections.risk_coverage),
    "guarantee": ("Guarantee", trust_sections.guarantee),
    "disagreement": ("Disagreement between members", detail_sections.disagreement),
    "curves": ("Training curves", detail_sections.curves),
}
"""Key of the analysis -> title of the section and function that draws it, in page order."""


def write_report(path: Path, analysis: Values, strips: Sequence[ImageStrip]) -> Path:
    """Write the report as one self-contained HTML page without network access or scripts.

    Args:
        path: HTML file.
        analysis: plain values, as in ``analysis.json`` of a run; a section is left out if its key is absent.
        strips: example images, in this order.

    Returns:
        ``path``.

    Raises:
        ResourceError: the file cannot be written.
    """
    sections = {key: (title, draw(analysis)) for key, (title, draw) in SECTIONS.items() if analysis.get(key)}
    if strips:
        sections["pictures"] = ("Images", detail_sections.images(strips, analysis))
    links = "".join(f'<a href="#{key}">{escape(title)}</a> ' for key, (title, _) in sections.items())
    parts = [headline(analysis), overview(analysis), warnings(analysis), f"<nav>{links}</nav>" if links else ""]
    parts += [
        f'<section id="{key}">\n<h2>{escape(title)}</h2>\n{body}\n</section>' for key, (title, body) in sections.items()
    ]
    write_page(path, f"Report of {analysis['run']}", "\n".join(part for part in parts if part))
    return path
