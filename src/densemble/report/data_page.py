"""HTML page of a data check: facts, problems with remedies, and example images."""

from pathlib import Path
from typing import Any

from densemble.data.check import group
from densemble.data.folder import FolderData
from densemble.errors import DataError
from densemble.inference import drawing
from densemble.markup import embedded_image, escape
from densemble.report.html_page import bar, colour_legend, scrolled, swatch, table, with_code, write_page
from densemble.report.samples import RawSample, SamplePainter, evenly, read_usable
from densemble.storage.images import as_unit, read_image

_SHOWN_PER_KIND = 5
_SHOWN_PAIRS = 12
_EXAMPLES_PER_SPLIT = 4
_WIDTH = 320
_MAX_CLASSES = 200
_FACTS = {
    "pairs": "pairs",
    "usable": "readable pairs",
    "sizes": "sizes",
    "channels": "channels",
    "depths": "data type",
    "with_fixations": "with fixations",
    "ignored_share": "share of ignored pixels",
    "values": "lowest and highest value",
    "mean": "mean value",
    "percentiles": "percentiles of the values",
    "invalid_share": "share of invalid pixels",
    "points": "points",
}


def write_data_page(data: FolderData, facts: dict[str, Any], path: Path) -> None:
    """Write the results of a data check as one self-contained HTML page.

    Args:
        data: the checked data folder.
        facts: result of :func:`densemble.data.check.check`.
        path: HTML file.

    Raises:
        ResourceError: the file cannot be written.
    """
    parts = [_head(facts), _problems(facts), _similar(data, facts), _facts(facts), _classes(facts), _examples(data)]
    write_page(path, f"Data check of {Path(facts['data']).name}", "\n".join(part for part in parts if part))


def verdict(facts: dict[str, Any]) -> str:
    """``ok`` if there are no errors, and the number of errors and warnings."""
    counts = {
        severity: sum(problem["severity"] == severity for problem in facts["problems"])
        for severity in ("error", "warning")
    }
    parts = [f"{count} {severity}{'s' if count > 1 else ''}" for severity, count in counts.items() if count]
    return ", ".join(parts if counts["error"] else ["ok", *parts])


def _head(facts: dict[str, Any]) -> str:
    severity = "error" if not facts["ok"] else "warning" if facts["problems"] else ""
    pairs = sum(split["pairs"] for split in facts["splits"].values())
    return (
        f"<h1>{escape(facts['data'])}</h1>\n<p>{pairs} pairs for <b>{escape(facts['task'])}</b>, layout "
        f"<b>{escape(facts['layout'])}</b>, split by {escape(facts['split_by'])}: "
        f'<span class="verdict {severity}">{escape(verdict(facts))}</span></p>'
    )


def _problems(facts: dict[str, Any]) -> str:
    blocks = []
    for problems in group(facts["problems"]):
        items = [f"<li>{escape(problem['message'])}</li>" for problem in problems.problems]
        rest = items[_SHOWN_PER_KIND:]
        more = f"<details><summary>and {len(rest)} more</summary><ul>{''.join(rest)}</ul></details>" if rest else ""
        blocks.append(
            f'<div class="problem {problems.severity}"><h3>{escape(problems.kind)} '
            f'<span class="quiet">({problems.severity}, {len(items)})</span></h3>'
            f"<ul>{''.join(items[:_SHOWN_PER_KIND])}</ul>{more}"
            f'<p class="remedy"><b>Remedy:</b> {with_code(problems.remedy)}</p></div>'
        )
    return f"<h2>Problems</h2>\n{''.join(blocks)}" if blocks else ""


def _similar(data: FolderData, facts: dict[str, Any]) -> str:
    """Identical or similar images, side by side."""
    pairs = [problem for problem in facts["problems"] if problem["partner"]]
    figures = []
    for problem in pairs[:_SHOWN_PAIRS]:
        images = [_image(data, Path(problem[key])) for key in ("file", "partner")]
        if None in images:
            continue
        names = " · ".join(escape(_relative(data, problem[key])) for key in ("file", "partner"))
        figures.append(
            f'<figure class="pair">{"".join(str(image) for image in images)}'
            f"<figcaption><b>{escape(problem['kind'])}</b>: {names}</figcaption></figure>"
        )
    if not figures:
        return ""
    count = f'<p class="quiet">{len(figures)} of {len(pairs)} pairs.</p>' if len(pairs) > len(figures) else ""
    return f'<h2>Identical and similar images</h2>\n{count}<div class="grid">{"".join(figures)}</div>'


def _image(data: FolderData, path: Path) -> str | None:
    try:
        image = as_unit(read_image(path), data.reading.options["image_range"])
    except DataError:
        return None
    return embedded_image(drawing.as_rgb(image), f"image {_relative(data, str(path))}", _WIDTH)


def _relative(data: FolderData, file: str) -> str:
    path = Path(file)
    return str(path.relative_to(data.path)) if path.is_relative_to(data.path) else file


def _facts(facts: dict[str, Any]) -> str:
    splits = facts["splits"]
    present = [key for key in _FACTS if any(key in split for split in splits.values())]
    rows = [[_FACTS[key], *(_cell(split.get(key)) for split in splits.values())] for key in present]
    rows = [row for row in rows if any(cell not in ("", "0") for cell in row[1:])]
    mean, std = (", ".join(f"{value:.3f}" for value in facts["pictures"][key]) for key in ("mean", "std"))
    statistics = f"Images per channel, in [0, 1]: mean {escape(mean)}; standard deviation {escape(std)}."
    return f'<h2>Facts</h2>\n{table(["fact", *splits], rows)}<p class="quiet">{statistics}</p>'


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_cell(item)}" for key, item in value.items())
    if isinstance(value, list):
        return " to ".join(_cell(item) for item in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


def _classes(facts: dict[str, Any]) -> str:
    """Table with the share of each class in each split as bars on one scale."""
    splits = {name: split for name, split in facts["splits"].items() if split.get("class_share")}
    if not splits:
        return ""
    largest = max(max(split["class_share"].values()) for split in splits.values()) or 1.0
    colours = drawing.class_colours(facts["classes"])
    rows = []
    for label, name in enumerate(facts["classes"][:_MAX_CLASSES]):
        cells = "".join(_share(split, name, largest, i > 0) for i, split in enumerate(splits.values()))
        rows.append(f"<tr><td>{swatch(colours[label])}{escape(name)}</td>{cells}</tr>")
    head = "".join(f'<th colspan="2">{escape(split)}</th><th class="number">images</th>' for split in splits)
    body = f"<table><thead><tr><th>class</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f"<h2>Classes</h2>\n{scrolled(body, 'classes')}"


def _share(split: dict[str, Any], name: str, largest: float, other: bool) -> str:
    share, images = split["class_share"][name], split["class_pictures"][name]
    drawn = bar(12 * share / largest, "bar other" if other else "bar")
    return f'<td>{drawn}</td><td class="number">{share:.2%}</td><td class="number">{images}</td>'


def _examples(data: FolderData) -> str:
    raw = {
        split: list(read_usable(data, evenly(samples, _EXAMPLES_PER_SPLIT)))
        for split, samples in data.layout.splits.items()
        if samples
    }
    painter = SamplePainter(data, [sample for samples in raw.values() for sample in samples])
    figures = [_example(split, sample, painter) for split, samples in raw.items() for sample in samples]
    if not figures:
        return ""
    legend = colour_legend(painter.legend())
    if painter.range is not None:
        low, high = painter.range
        unit = escape(data.options["unit"])
        legend = f"From {low:.4g} (dark blue) to {high:.4g} {unit} (yellow); black: invalid."
    return f'<h2>Examples</h2>\n<p class="legend">{legend}</p><div class="grid">{"".join(figures)}</div>'


def _example(split: str, sample: RawSample, painter: SamplePainter) -> str:
    name = f"{split}/{sample.title}"
    images = "".join(
        embedded_image(pixels, f"{part} {name}", _WIDTH)
        for part, pixels in zip(("image", "target of"), painter.draw(sample), strict=True)
    )
    return f"<figure>{images}<figcaption>{escape(name)}</figcaption></figure>"
