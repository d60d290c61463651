"""Report sections about the members in detail: errors, disagreement and training curves."""

from dataclasses import replace

from densemble.markup import escape
from densemble.report.figures import ChartAxis, Series, Style, chart, legend
from densemble.report.html_page import Section, Values, column_table, fold, scrolled, strong
from densemble.report.ranges import main_values, padded
from densemble.report.rounding import numbers

_LISTED_IMAGES, _MOST_IMAGES = 10, 500
_SPIKE = 10.0
"""Losses at the start, or scores of weak members, may differ by several times the range of the others."""
_FAINTEST, _STRONGEST = 0.05, 0.6
_LOSSES: dict[str, Style] = {"train_loss": "first", "loss": "first", "val_loss": "second"}


def error_correlation(analysis: Values) -> Section:
    """Heat map of the correlation between the errors of members."""
    names, matrix = analysis["error_correlation"]["names"], analysis["error_correlation"]["matrix"]
    pairs = [(matrix[i][j], names[i], names[j]) for i in range(len(names)) for j in range(i)]
    known = [pair for pair in pairs if pair[0] is not None]
    low, high = min((pair[0] for pair in known), default=0.0), max((pair[0] for pair in known), default=1.0)
    head = "".join(f'<th scope="col"><span class="upright">{escape(name)}</span></th>' for name in names)
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
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
    matrix_table = f'<table class="matrix"><thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table>'
    return Section(explanation, f"{scrolled(matrix_table, 'error correlation')}<p>{extremes}</p>")


def disagreement(analysis: Values) -> Section:
    """Images with the largest disagreement between members, and all images behind a fold."""
    rows = analysis["disagreement"]
    explanation = (
        "Images with the largest disagreement between the members of the ensemble, and the score of the ensemble on "
        "them. Check their labels first. If you label more images, start with similar ones."
    )
    rest = rows[_LISTED_IMAGES:_MOST_IMAGES]
    others = fold(f"{len(rest)} further images", _image_table(rest, analysis["metric"])) if rest else ""
    return Section(explanation, _image_table(rows[:_LISTED_IMAGES], analysis["metric"]) + others)


def _image_table(rows: list[Values], metric: str) -> str:
    columns = {
        "image": [row["picture"] for row in rows],
        "disagreement": numbers([row.get("disagreement") for row in rows]),
        metric: numbers([row.get("score") for row in rows]),
    }
    return column_table(columns)


def curves(analysis: Values) -> Section:
    """Loss and validation score of each member over the epochs."""
    metric = f"val_{analysis['metric']}"
    scores = [score for rows in analysis["curves"].values() for _, score in _points(rows, metric)]
    within = padded(main_values(scores, _SPIKE))
    panels = "".join(_training(name, rows, metric, within) for name, rows in analysis["curves"].items() if rows)
    key = legend([Series("training loss", (), "first"), Series("validation loss", (), "second")])
    explanation = (
        "Loss and validation score of each member over the epochs. The scores of all members share one scale; an arrow "
        "points to a value beyond it. A validation loss that rises while the training loss falls indicates overfitting."
    )
    return Section(explanation, f'{key}<div class="figures">{panels}</div>')


def _shade(value: float | None, low: float, high: float, diagonal: bool) -> str:
    """Cell of the correlation table, coloured by its value."""
    if diagonal or value is None:
        return '<td class="quiet">·</td>'
    share = (value - low) / (high - low) if high > low else 0.5
    opacity = _FAINTEST + (_STRONGEST - _FAINTEST) * min(max(share, 0), 1)
    return f'<td style="background:rgba(var(--shade),{opacity:.2f})">{value:.2f}</td>'


def _training(name: str, rows: list[Values], metric: str, within: tuple[float, float]) -> str:
    losses = [Series("", points, style) for key, style in _LOSSES.items() if (points := _points(rows, key))]
    epochs = ChartAxis("", padded([row["epoch"] for row in rows], 0.04), least_step=1)
    spread = padded(main_values([loss for series in losses for _, loss in series.points], _SPIKE))
    parts = [chart(losses, epochs, ChartAxis("loss", spread), (270, 150))] if losses else []
    scores = _points(rows, metric)
    if scores:
        score = ChartAxis(metric.removeprefix("val_"), within)
        parts.append(chart([Series("", scores)], replace(epochs, label="epoch"), score, (270, 160)))
    return f"<figure><figcaption><b>{escape(name)}</b></figcaption>{''.join(parts)}</figure>"


def _points(rows: list[Values], key: str) -> list[tuple[float, float]]:
    return [(row["epoch"], row[key]) for row in rows if row.get(key) is not None]
