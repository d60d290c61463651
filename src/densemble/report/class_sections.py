"""Report sections about classes: IoU, precision and recall, and the confusion matrix."""

from collections.abc import Sequence

from densemble.inference.drawing import class_colours
from densemble.markup import Markup, escape
from densemble.report.html_page import Section, Values, bar, fold, scrolled, split, strong, swatch, table
from densemble.report.rounding import numbers

_TALL = 25
_LARGEST_MATRIX = 40
_FAINTEST = 0.004
_CONFUSIONS = 8
_BAR = 4.0


def per_class(analysis: Values) -> Section:
    """IoU, precision and recall of each class, then the IoU of every member."""
    values = analysis["per_class"]
    classes, scores = values["classes"], values["scores"]
    ensembles = [name for name in ("ensemble, cross-fitted", "ensemble") if name in scores]
    names = [Markup(f"{swatch(colour)}{escape(name)}") for colour, name in zip(
        class_colours(classes), classes, strict=True)]  # fmt: skip
    explanation = "Scores at the size of the targets."
    results = ""
    if values.get("precision"):
        explanation += (
            " Precision is the share of the pixels predicted as a class that belong to it; recall is the share of the "
            f"pixels of a class that are predicted as it. {_measured(analysis, 'Both')}"
        )
        results = _results(names, values, ensembles)
    if "evaluated" not in analysis:
        explanation += (
            " The column 'ensemble' is the artifact on all validation images (fitted on these images), equal to "
            "`densemble evaluate --split val`. 'Cross-fitted' was measured on images that were not used to fit the "
            "ensemble."
        )
    explanation += " An empty cell means that the class does not occur or is ignored."
    members, wins = _members(names, scores, ensembles, analysis["higher_is_better"])
    return Section(explanation, split(results, f"{members}{wins}"))


def _measured(analysis: Values, subject: str) -> str:
    if "evaluated" in analysis:
        return f"{subject} were measured on {analysis['evaluated']['images']}."
    if "cross_fitted" in analysis:
        return f"{subject} are cross-fitted: measured on images that were not used to fit the ensemble."
    return f"{subject} were measured on images that the ensemble was fitted on."


def _results(names: Sequence[Markup], values: Values, ensembles: Sequence[str]) -> str:
    """Table of the ensemble: share of the pixels, IoU, precision and recall as bars."""
    shares = [f"{share:.1%}" for share in values["share"]]
    columns = {"precision": values["precision"], "recall": values["recall"]}
    if ensembles:
        columns = {"IoU": values["scores"][ensembles[0]], **columns}
    cells = [
        [Markup(f'{text} <span class="track">{bar(_BAR * (value or 0)) if value else ""}</span>') if text else ""
         for text, value in zip(numbers(column), column, strict=True)]
        for column in columns.values()
    ]  # fmt: skip
    rows = zip(names, shares, *cells, strict=True)
    return table(["class", "pixels", *columns], rows, "precision and recall", tall=len(names) > _TALL)


def _members(
    names: Sequence[Markup], scores: Values, ensembles: Sequence[str], higher_is_better: bool
) -> tuple[str, str]:
    """Table of the IoU of ensembles and members with the best of each row in bold, and how often the ensemble wins."""
    members = [name for name in scores if name not in ensembles]
    columns = [*ensembles, *members]
    best = max if higher_is_better else min
    texts = iter(numbers([scores[column][i] for i in range(len(names)) for column in columns]))
    rows, compared, wins = [], 0, 0
    for index, name in enumerate(names):
        values = [scores[column][index] for column in columns]
        known = {value for value in values if value is not None}
        top = best(known) if len(known) > 1 else None
        others = [scores[member][index] for member in members if scores[member][index] is not None]
        if ensembles and others and values[0] is not None:
            compared += 1
            wins += values[0] == best(values[0], *others)
        cells = [strong(next(texts)) if top is not None and value == top else next(texts) for value in values]
        rows.append([name, *cells])
    shown = table(["IoU of each class", *columns], rows, "IoU of the members", tall=len(names) > _TALL)
    ensemble = {"ensemble": "ensemble", "ensemble, cross-fitted": "cross-fitted ensemble"}
    won = f"<p>No member is better than the {ensemble[ensembles[0]]} in {wins} of {compared} classes.</p>"
    return shown, won if compared else ""


def confusion(analysis: Values) -> Section:
    """Confusion matrix with the shares of each target class, and the most frequent confusions."""
    classes, counts = analysis["per_class"]["classes"], analysis["confusion"]
    totals = [sum(row) for row in counts]
    shares = [[count / total if total else None for count in row] for row, total in zip(counts, totals, strict=True)]
    explanation = (
        "Each row is a class of the target; its cells are the shares of its pixels that were predicted as each class, "
        "in percent, so the diagonal is the recall. Blue is correct, orange is wrong; an empty cell is below 0.5 %. "
        f"{_measured(analysis, 'The counts')}"
    )
    frequent = _frequent(classes, counts, totals)
    if len(classes) > _LARGEST_MATRIX:
        text = f"<p>The matrix of {len(classes)} classes is too large for a page.</p>"
        return Section(explanation, frequent + text)
    return Section(explanation, split(_matrix(classes, shares), frequent) + _counts(classes, counts))


def _matrix(classes: Sequence[str], shares: Sequence[Sequence[float | None]]) -> str:
    colours = class_colours(classes)
    head = "".join(f'<th scope="col"><span class="upright">{escape(name)}</span></th>' for name in classes)
    rows = "".join(
        f'<tr><th scope="row">{swatch(colours[i])}{escape(name)}</th>'
        f"{''.join(_share(share, i == j) for j, share in enumerate(shares[i]))}</tr>"
        for i, name in enumerate(classes)
    )
    corner = '<td><span class="quiet">target \N{DOWNWARDS ARROW} predicted \N{RIGHTWARDS ARROW}</span></td>'
    body = f'<table class="matrix"><thead><tr>{corner}{head}</tr></thead><tbody>{rows}</tbody></table>'
    return scrolled(body, "confusion matrix in percent of each target class")


def _share(share: float | None, diagonal: bool) -> str:
    kind = ' class="diagonal"' if diagonal else ""
    if share is None or share < 0.005:
        return f"<td{kind}></td>"
    colour = "--shade" if diagonal else "--wrong"
    opacity = max(_FAINTEST, 0.55 * share**0.6)
    return f'<td{kind} style="background:rgba(var({colour}),{opacity:.2f})">{100 * share:.0f}</td>'


def _frequent(classes: Sequence[str], counts: Sequence[Sequence[int]], totals: Sequence[int]) -> str:
    """The pairs of classes with the most confused pixels."""
    wrong = sum(totals) - sum(row[i] for i, row in enumerate(counts))
    pairs = sorted(((count, i, j) for i, row in enumerate(counts) for j, count in enumerate(row) if i != j and count),
                   reverse=True)[:_CONFUSIONS]  # fmt: skip
    rows = [
        [classes[i], classes[j], f"{count:,}", f"{count / totals[i]:.1%}", f"{count / wrong:.1%}"]
        for count, i, j in pairs
    ]
    columns = ["target", "predicted as", "pixels", "of the target class", "of all errors"]
    return f"<h3>Most frequent confusions</h3>{table(columns, rows)}" if rows else ""


def _counts(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    rows = [[name, *(f"{count:,}" for count in row)] for name, row in zip(classes, counts, strict=True)]
    return fold("Number of pixels", table(["target", *classes], rows, "confusion matrix in pixels"))
