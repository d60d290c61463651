"""Report sections about the members in detail: errors, classes, images and training curves."""

from collections.abc import Sequence
from dataclasses import replace

from densemble.inference.drawing import class_colours
from densemble.report.figures import ChartAxis, Series, Style, chart, legend, padded
from densemble.report.html_page import (
    Markup,
    Values,
    colour_legend,
    column_table,
    embed,
    escape,
    note,
    strong,
    swatch,
    table,
)
from densemble.report.rounding import number, numbers
from densemble.report.strips import ImageStrip

_LISTED_IMAGES = 15
_LEGEND_CLASSES = 40
_WIDTH = 220
_TALL = 25
_FAINTEST, _STRONGEST = 0.05, 0.6
_LOSSES: dict[str, Style] = {"train_loss": "first", "loss": "first", "val_loss": "second"}


def error_correlation(analysis: Values) -> str:
    """Heat map of the correlation between the errors of members."""
    names, matrix = analysis["error_correlation"]["names"], analysis["error_correlation"]["matrix"]
    pairs = [(matrix[i][j], names[i], names[j]) for i in range(len(names)) for j in range(i)]
    known = [pair for pair in pairs if pair[0] is not None]
    low, high = min((pair[0] for pair in known), default=0.0), max((pair[0] for pair in known), default=1.0)
    head = "".join(f'<th><span class="upright">{escape(name)}</span></th>' for name in names)
    rows = "".join(
        f"<tr><th>{escape(name)}</th>"
        f"{''.join(_shade(value, low, high, row == column) for column, value in enumerate(matrix[row]))}</tr>"
        for row, name in enumerate(names)
    )
    explanation = (
        "Correlation between the errors of two members, over the pixels of small maps of the validation images. 1 "
        "means errors at the same pixels, 0 independent errors. Members with a low correlation complement each other."
    )
    extremes = "".join(
        f" {title}: {escape(b)} and {escape(a)}, {strong(f'{value:.2f}')}."
        for title, (value, a, b) in ([("Highest", max(known)), ("Lowest", min(known))] if known else [])
    )
    return (
        f'{note(explanation)}<p>{extremes}</p><div class="wide"><table class="matrix"><tr><th></th>{head}</tr>{rows}'
        "</table></div>"
    )


def per_class(analysis: Values) -> str:
    """Scores per class of the ensemble and the members."""
    classes, scores = analysis["per_class"]["classes"], analysis["per_class"]["scores"]
    ensembles = [name for name in ("ensemble, cross-fitted", "ensemble") if name in scores]
    columns = [*ensembles, *(name for name in scores if name not in ensembles)]
    best = max if analysis["higher_is_better"] else min
    colours = class_colours(classes)
    texts = iter(numbers([scores[column][i] for i in range(len(classes)) for column in columns]))
    rows, compared, wins = [], 0, 0
    for index, name in enumerate(classes):
        values = [scores[column][index] for column in columns]
        known = {value for value in values if value is not None}
        top = best(known) if len(known) > 1 else None
        if top is not None:
            compared += 1
            wins += values[0] == top
        cells = [
            strong(text) if top is not None and value == top else text
            for value, text in ((value, next(texts)) for value in values)
        ]
        rows.append([Markup(f"{swatch(colours[index])}{escape(name)}"), *cells])
    explanation = (
        "IoU at the size of the targets. The column 'ensemble' is the artifact on all validation images (fitted on "
        "these images), equal to `densemble evaluate --split val`. 'Cross-fitted' was measured on images that were not "
        "used to fit the ensemble. The best score of each row is bold. An empty cell means that the class does not "
        "occur or is ignored."
    )
    if ensembles:
        explanation += f" The {ensembles[0]} is the best in {wins} of {compared} classes."
    class_table = table(["class", *columns], rows)
    if len(classes) > _TALL:
        class_table = class_table.replace('class="wide"', 'class="wide tall"', 1)
    return f"{note(explanation)}{class_table}"


def disagreement(analysis: Values) -> str:
    """Images with the largest disagreement between members."""
    rows = analysis["disagreement"][:_LISTED_IMAGES]
    columns = {
        "image": [row["picture"] for row in rows],
        "disagreement": numbers([row.get("disagreement") for row in rows]),
        analysis["metric"]: numbers([row.get("score") for row in rows]),
    }
    explanation = (
        "Images with the largest disagreement between the members of the cross-fitted ensemble, and the score of the "
        "ensemble on them. Check their labels first. If you label more images, start with similar ones."
    )
    return note(explanation) + column_table(columns)


def curves(analysis: Values) -> str:
    """Loss and validation score of each member over the epochs."""
    metric = f"val_{analysis['metric']}"
    within = padded([score for rows in analysis["curves"].values() for _, score in _points(rows, metric)])
    panels = "".join(_training(name, rows, metric, within) for name, rows in analysis["curves"].items() if rows)
    key = legend([Series("training loss", (), "first"), Series("validation loss", (), "second")])
    explanation = (
        "Loss and validation score of each member over the epochs. The scores of all members share one scale. A "
        "validation loss that rises while the training loss falls indicates overfitting."
    )
    return f'{note(explanation)}{key}<div class="figures">{panels}</div>'


def images(strips: Sequence[ImageStrip], analysis: Values) -> str:
    """Example images, one row of panels each."""
    classes = analysis.get("per_class", {}).get("classes", [])
    key = colour_legend(zip(classes[:_LEGEND_CLASSES], class_colours(classes), strict=False))
    explanation = (
        "Each row shows the image, the target (black: unknown), the prediction of the ensemble, its uncertainty "
        "(bright: uncertain) and the prediction of each member. Scroll a row sideways to see all members."
    )
    key = f'<p class="legend small">{key}</p>' if key else ""
    return f"{note(explanation)}{key}{''.join(_strip(strip, analysis['metric']) for strip in strips)}"


def _shade(value: float | None, low: float, high: float, diagonal: bool) -> str:
    """Cell of the correlation table, coloured by its value."""
    if diagonal or value is None:
        return '<td class="quiet">·</td>'
    share = (value - low) / (high - low) if high > low else 0.5
    opacity = _FAINTEST + (_STRONGEST - _FAINTEST) * min(max(share, 0), 1)
    return f'<td style="background:rgba(74,127,181,{opacity:.2f})">{value:.2f}</td>'


def _training(name: str, rows: list[Values], metric: str, within: tuple[float, float]) -> str:
    losses = [Series("", points, style) for key, style in _LOSSES.items() if (points := _points(rows, key))]
    epochs = ChartAxis("", padded([row["epoch"] for row in rows], 0.04), least_step=1)
    parts = [chart(losses, epochs, ChartAxis("loss"), (250, 140))] if losses else []
    scores = _points(rows, metric)
    if scores:
        score = ChartAxis(metric.removeprefix("val_"), within)
        parts.append(chart([Series("", scores)], replace(epochs, label="epoch"), score, (250, 150)))
    return f"<figure><figcaption><b>{escape(name)}</b></figcaption>{''.join(parts)}</figure>"


def _points(rows: list[Values], key: str) -> list[tuple[float, float]]:
    return [(row["epoch"], row[key]) for row in rows if row.get(key) is not None]


def _strip(strip: ImageStrip, metric: str) -> str:
    score = "" if strip.score is None else f", {escape(metric)} {number(strip.score)}"
    panels = "".join(
        f"<figure>{embed(pixels, _WIDTH)}<figcaption>{escape(title)}</figcaption></figure>"
        for title, pixels in strip.panels
    )
    return (
        f'<h3>{escape(strip.name)}<span class="quiet">{score}: {escape(strip.caption)}</span></h3>'
        f'<div class="strip">{panels}</div>'
    )
