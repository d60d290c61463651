"""The report of a run or an evaluation: one self-contained HTML page with images, scores and their explanation."""

from collections.abc import Callable, Sequence
from pathlib import Path

from densemble.markup import escape
from densemble.report import choice_sections, class_sections, detail_sections, trust_sections
from densemble.report.answer import headline, overview, warnings
from densemble.report.html_page import Section, Values, note, write_page
from densemble.report.image_section import images
from densemble.report.strips import ImageStrip

SECTIONS: dict[str, tuple[str, Callable[[Values], Section]]] = {
    "strategies": ("Selection strategies", choice_sections.strategies),
    "rules": ("Combination rules", choice_sections.rules),
    "members": ("Members", choice_sections.members),
    "pareto": ("Score against time", choice_sections.pareto),
    "error_correlation": ("Error correlation", detail_sections.error_correlation),
    "per_class": ("Scores per class", class_sections.per_class),
    "confusion": ("Confusion matrix", class_sections.confusion),
    "calibration": ("Calibration", trust_sections.calibration),
    "risk_coverage": ("Risk and coverage", trust_sections.risk_coverage),
    "guarantee": ("Guarantee", trust_sections.guarantee),
    "disagreement": ("Disagreement between members", detail_sections.disagreement),
    "curves": ("Training curves", detail_sections.curves),
}
"""Key of the analysis -> title of the section and function that draws it, in page order."""
_NEEDED = {"confusion": "per_class"}
"""Key of the analysis -> another key that its section needs."""


def write_report(path: Path, analysis: Values, strips: Sequence[ImageStrip]) -> Path:
    """Write the report as one self-contained HTML page without network access or scripts.

    Args:
        path: HTML file.
        analysis: plain values, as in ``analysis.json`` of a run; a section is left out if its key is absent. With the
            key ``evaluated``, they are those of an evaluation.
        strips: example images, in this order.

    Returns:
        ``path``.

    Raises:
        ResourceError: the file cannot be written.
    """
    sections = {
        key: (title, draw(analysis))
        for key, (title, draw) in SECTIONS.items()
        if analysis.get(key) and analysis.get(_NEEDED.get(key, key))
    }
    answer = overview(analysis) + warnings(analysis)
    titles = {"images": "Images"} if strips else {}
    titles |= {"answer": "Result"} if answer else {}
    titles |= {key: title for key, (title, _) in sections.items()}
    links = "".join(f'<a href="#{key}">{escape(title)}</a> ' for key, title in titles.items())
    parts = [headline(analysis), f'<nav aria-label="sections">{links}</nav>' if links else ""]
    if strips:
        parts.append(_whole("images", titles["images"], images(strips, analysis)))
    if answer:
        parts.append(_whole("answer", titles["answer"], answer))
    parts += [_beside(key, title, section) for key, (title, section) in sections.items()]
    write_page(path, f"Report of {analysis['run']}", "\n".join(part for part in parts if part))
    return path


def _whole(key: str, title: str, body: str) -> str:
    """Section that uses the whole width of the page."""
    return f'<section id="{key}" class="whole">\n<h2>{escape(title)}</h2>\n{body}\n</section>'


def _beside(key: str, title: str, section: Section) -> str:
    """Section with its explanation beside the content, or above it on a narrow page."""
    head = f"<h2>{escape(title)}</h2>\n{note(section.explanation)}"
    return f'<section id="{key}">\n<div>{head}</div>\n<div class="body">{section.body}</div>\n</section>'
