"""Sections of a run's report about where members differ: errors, classes, images and the course of training."""

from collections.abc import Sequence
from dataclasses import replace

from densemble.inference.drawing import palette
from densemble.report.figures import Axis, Series, chart, legend, padded
from densemble.report.html_page import Markup, Values, embed, escape, note, strong, swatch, table
from densemble.report.rounding import number, numbers
from densemble.report.strips import ImageStrip

_LISTED = 15
_MOST_NAMED = 40
_WIDTH = 220
_TALL = 25
_FAINTEST, _STRONGEST = 0.05, 0.6
_LOSSES = {"train_loss": "first", "loss": "first", "val_loss": "second"}


def error_correlation(analysis: Values) -> str:
    """A heat map of how often members err together."""
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
    said = (
        "Correlation of two members' errors over the pixels of small maps of the validation images: 1 means that they "
        "err in the same places, 0 that they err independently. Members with a low correlation complement each other."
    )
    ends = "".join(
        f" {what}: {escape(b)} and {escape(a)}, {strong(f'{value:.2f}')}."
        for what, (value, a, b) in ([("Most alike", max(known)), ("Least alike", min(known))] if known else [])
    )
    return (
        f'{note(said)}<p>{ends}</p><div class="wide"><table class="matrix"><tr><th></th>{head}</tr>{rows}</table></div>'
    )


def per_class(analysis: Values) -> str:
    """Who is best at which class."""
    classes, scores = analysis["per_class"]["classes"], analysis["per_class"]["scores"]
    first = [name for name in ("ensemble, cross-fitted", "ensemble") if name in scores]
    columns = [*first, *(name for name in scores if name not in first)]
    best = max if analysis["higher_is_better"] else min
    texts = dict(zip(columns, _as_texts([scores[column] for column in columns]), strict=True))
    rows, told, wins = [], 0, 0
    for place, name in enumerate(classes):
        values = {column: scores[column][place] for column in columns}
        known = {value for value in values.values() if value is not None}
        top = best(known) if len(known) > 1 else None
        told, wins = told + (top is not None), wins + (top is not None and values.get(first[0] if first else "") == top)
        cells = [
            strong(texts[column][place]) if top is not None and value == top else texts[column][place]
            for column, value in values.items()
        ]
        rows.append([Markup(f"{swatch(palette(len(classes))[place])}{escape(name)}"), *cells])
    said = (
        "IoU at the targets' own size. The column 'ensemble' is the saved file on all validation images, on which it "
        "was fitted: equal to `densemble evaluate --split val`. 'Cross-fitted' was measured on images that played no "
        "part in making the ensemble. The best of each row is bold; an empty cell means that the class "
        "does not occur or is ignored."
    )
    won = f" The {first[0]} is the best in {wins} of {told} classes." if first else ""
    shown = table(["class", *columns], rows)
    tall = shown.replace('class="wide"', 'class="wide tall"', 1) if len(classes) > _TALL else shown
    return f"{note(said + won)}{tall}"


def disagreement(analysis: Values) -> str:
    """Images worth a look, or a label."""
    rows = analysis["disagreement"][:_LISTED]
    texts = zip(
        [row["picture"] for row in rows],
        numbers([row.get("disagreement") for row in rows]),
        numbers([row.get("score") for row in rows]),
        strict=True,
    )
    said = (
        "Images on which the members of the cross-fitted ensemble differ most, and its score there. They are the first "
        "to check for wrong labels, and images like them are the first worth labelling."
    )
    return f"{note(said)}{table(['image', 'disagreement', analysis['metric']], texts)}"


def curves(analysis: Values) -> str:
    """How every training went, in small multiples."""
    metric = f"val_{analysis['metric']}"
    every = [row[metric] for rows in analysis["curves"].values() for row in rows if row.get(metric) is not None]
    within = padded(every)
    panels = "".join(_training(name, rows, metric, within) for name, rows in analysis["curves"].items() if rows)
    key = legend([Series("training loss", (), "first"), Series("validation loss", (), "second")])
    said = (
        "Loss and validation score of every member, epoch by epoch; the scores share one scale. A validation loss that "
        "rises while the training loss falls means that the member learned the images by heart."
    )
    return f'{note(said)}{key}<div class="figures">{panels}</div>'


def images(strips: Sequence[ImageStrip], analysis: Values) -> str:
    """Rows of panels, one row an image."""
    classes = analysis.get("per_class", {}).get("classes", [])
    colours = palette(len(classes))
    named = "".join(
        f"<span>{swatch(colour)}{escape(name)}</span> "
        for name, colour in zip(classes[:_MOST_NAMED], colours, strict=False)
    )
    said = (
        "The image, what is true of it (black: unknown), what the ensemble says, where it is unsure (bright), and "
        "what each member says. Scroll a row sideways to see all members."
    )
    key = f'<p class="legend small">{named}</p>' if named else ""
    return f"{note(said)}{key}{''.join(_strip(strip, analysis['metric']) for strip in strips)}"


def _as_texts(columns: Sequence[Sequence[float | None]]) -> list[list[str]]:
    """Columns of numbers, with the same decimals in all."""
    texts = iter(numbers([value for column in columns for value in column]))
    return [[next(texts) for _ in column] for column in columns]


def _shade(value: float | None, low: float, high: float, itself: bool) -> str:
    if itself or value is None:
        return '<td class="quiet">·</td>'
    share = (value - low) / (high - low) if high > low else 0.5
    opacity = _FAINTEST + (_STRONGEST - _FAINTEST) * min(max(share, 0), 1)
    return f'<td style="background:rgba(74,127,181,{opacity:.2f})">{value:.2f}</td>'


def _training(name: str, rows: list[Values], metric: str, within: tuple[float, float]) -> str:
    losses = [
        Series("", points, "second" if style == "second" else "first")
        for key, style in _LOSSES.items()
        if (points := _points(rows, key))
    ]
    epochs = Axis("", padded([row["epoch"] for row in rows], 0.04), least_step=1)
    parts = [chart(losses, epochs, Axis("loss"), (250, 140))] if losses else []
    scores = _points(rows, metric)
    if scores:
        score = Axis(metric.removeprefix("val_"), within)
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
