"""Report sections about selection: strategies, combination rules, members, and score against time."""

from collections.abc import Sequence

from densemble.report.figures import ChartAxis, Series, chart, interval_axis, interval_bar, padded
from densemble.report.html_page import Markup, Values, bar, column_table, escape, figure, note, strong, table
from densemble.report.rounding import intervals, numbers

_GAINS = {"gain_over_best": "gain over best single", "gain_over_all": "gain over mean of all"}


def strategies(analysis: Values) -> str:
    """Selection strategies with scores, intervals and gains."""
    rows = _best_first(analysis["strategies"], analysis)
    further: dict[str, Sequence[str]] = {
        "members": [str(row.get("members", "")) for row in rows],
        "ms": numbers([row.get("milliseconds") for row in rows]),
        **{heading: _values_with_intervals([row.get(key) or {} for row in rows], "value", True)
           for key, heading in _GAINS.items()},
    }  # fmt: skip
    explanation = (
        "Strategies for selecting members. For each fold, members, weights, rule and calibration are fitted on the "
        "other folds; the score is measured on the fold itself, on full-size maps. The dot is the score, the line its "
        "95 % interval over the images. A positive gain means that the strategy is better; the gain is significant if "
        "its interval excludes 0."
    )
    return note(explanation) + _interval_table("strategy", rows, further, analysis.get("chosen", {}).get("select"))


def rules(analysis: Values) -> str:
    """Combination rules with scores and intervals."""
    rows = _best_first(analysis["rules"], analysis)
    further: dict[str, Sequence[str]] = {key: numbers([row.get(key) for row in rows]) for key in ("nll", "ece")}
    explanation = (
        "Combination rules for the selected members. For each fold, members and rule are fitted on the other folds, "
        "without calibration of the ensemble. The score is measured on the fold itself: on a random sample of pixels "
        "if the metric is a sum over pixels, otherwise on the stored small maps. nll and ece describe the "
        "probabilities: lower is better."
    )
    return note(explanation) + _interval_table("rule", rows, further, analysis.get("chosen", {}).get("combine"))


def members(analysis: Values) -> str:
    """Score, cost and contribution of every member."""
    rows = _best_first(analysis["members"], analysis)
    timed = [row for row in rows if row.get("score") is not None and row.get("milliseconds") is not None]
    points = Series(
        "members", [(row["milliseconds"], row["score"]) for row in timed], "first", "dots", [r["name"] for r in timed]
    )
    drawing = _score_against_time([points, *_ensemble_point(analysis)], analysis, 320) if timed else ""
    explanation = (
        "Score of each single member on all validation images (its best epoch was selected on them), its cost, and its "
        "weight in the ensemble. Leave-one-out is the loss of cross-fitted score without the member; a value near 0 or "
        "below means that the member is not needed."
    )
    return note(explanation) + drawing + _member_table(rows, analysis)


def pareto(analysis: Values) -> str:
    """Best score for each amount of time."""
    rows = sorted(analysis["pareto"], key=lambda row: row["milliseconds"])
    points = [(row["milliseconds"], row["score"]) for row in rows]
    labels = [row["members"][0] if len(row["members"]) == 1 else f"{len(row['members'])} members" for row in rows]
    front = _score_against_time([Series("", points, "first", "steps", labels)], analysis, 300)
    explanation = (
        "Ensembles for which no other ensemble is both faster and better. The scores are optimistic: they are measured "
        "without calibration, on small maps of the images that the ensembles were selected on. Use them to compare "
        "these ensembles only."
    )
    shown = {
        "members": [str(len(row["members"])) for row in rows],
        "ms": numbers([row["milliseconds"] for row in rows]),
        analysis["metric"]: numbers([row["score"] for row in rows]),
        "names": [" + ".join(row["members"]) for row in rows],
    }
    return note(explanation) + front + column_table(shown)


def _score_against_time(series: Sequence[Series], analysis: Values, height: int) -> str:
    return figure(chart(series, ChartAxis("ms per image"), ChartAxis(analysis["metric"]), (480, height)))


def _best_first(rows: Sequence[Values], analysis: Values) -> list[Values]:
    """Rows sorted by score, best first; rows without a score last."""
    sign = -1 if analysis["higher_is_better"] else 1
    return sorted(rows, key=lambda row: (row.get("score") is None, sign * (row.get("score") or 0)))


def _interval_table(heading: str, rows: Sequence[Values], further: dict[str, Sequence[str]], selected: object) -> str:
    """Table of scores whose intervals are drawn on one common scale.

    Args:
        heading: of the first column.
        rows: with ``name``, ``score``, ``low`` and ``high``.
        further: heading -> cells of further columns; empty columns are left out.
        selected: name of the row to mark.
    """
    ends = [row[key] for row in rows for key in ("score", "low", "high") if row.get(key) is not None]
    within = padded(ends)
    columns = {name: cells for name, cells in further.items() if any(cells)}
    bars = [interval_bar(row.get("score"), row.get("low"), row.get("high"), within) for row in rows]
    names = [strong(f"{row['name']} (selected)") if row["name"] == selected else row["name"] for row in rows]
    body = list(zip(names, _values_with_intervals(rows, "score"), bars, *columns.values(), strict=True))
    axis: tuple[object, ...] = ("", "", interval_axis(within), *("" for _ in columns))
    return table([heading, "score", "", *columns], [*body, axis])


def _values_with_intervals(rows: Sequence[Values], key: str, signed: bool = False) -> list[Markup]:
    """Cells with a value and, in small type below it, its interval."""
    return [
        Markup(escape(value) + (f'<br><span class="spread">{escape(span)}</span>' if span else ""))
        for value, span in intervals(rows, key, signed)
    ]


def _ensemble_point(analysis: Values) -> list[Series]:
    score = analysis.get("cross_fitted", {}).get("score", {}).get("value")
    milliseconds = analysis.get("chosen", {}).get("milliseconds")
    if score is None or milliseconds is None:
        return []
    return [Series("ensemble", [(milliseconds, score)], "second", "dots", ["ensemble, cross-fitted"])]


def _member_table(rows: Sequence[Values], analysis: Values) -> str:
    """Members, then baselines; empty columns are left out."""
    millions = [None if row.get("parameters") is None else row["parameters"] / 1e6 for row in rows]
    baselines = _best_first(analysis.get("baselines", []), analysis)
    columns: dict[str, Sequence[str]] = {
        "ms": numbers([row.get("milliseconds") for row in rows]),
        "million parameters": numbers(millions, 4),
        "weight": [_weight(row.get("share")) for row in rows],
        "leave-one-out": numbers([row.get("leave_one_out") for row in rows], 2, signed=True),
        "state": [row.get("state", "") for row in rows],
    }
    baseline_names = [Markup(f'<span class="quiet">baseline: {escape(row["name"])}</span>') for row in baselines]
    shown: dict[str, Sequence[object]] = {
        "member": [*(row["name"] for row in rows), *baseline_names],
        analysis["metric"]: numbers([row.get("score") for row in [*rows, *baselines]]),
    }
    shown |= {heading: [*cells, *("" for _ in baselines)] for heading, cells in columns.items() if any(cells)}
    return column_table(shown)


def _weight(share: float | None) -> Markup:
    if share is None:
        return Markup("")
    return Markup(f'{share:.0%} <span class="track">{bar(4 * share) if share > 0 else ""}</span>')
