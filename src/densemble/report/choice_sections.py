"""Report sections about selection: strategies, combination rules, members, and score against time."""

from collections.abc import Sequence

from densemble.markup import Markup, escape
from densemble.report.figures import ChartAxis, Series, chart
from densemble.report.html_page import Section, Values, bar, column_table, figure, fold, split
from densemble.report.interval_table import interval_table, values_with_intervals
from densemble.report.rounding import numbers

_GAINS = {"gain_over_best": "gain over best single", "gain_over_all": "gain over mean of all"}


def strategies(analysis: Values) -> Section:
    """Selection strategies with scores, intervals and gains."""
    rows = _best_first(analysis["strategies"], analysis)
    further: dict[str, Sequence[str]] = {
        "members": [str(row.get("members", "")) for row in rows],
        "ms": numbers([row.get("milliseconds") for row in rows]),
        **{heading: values_with_intervals([row.get(key) or {} for row in rows], "value", True)
           for key, heading in _GAINS.items()},
    }  # fmt: skip
    explanation = (
        "Strategies for selecting members. For each fold, members, weights, rule and calibration are fitted on the "
        "other folds; the score is measured on the fold itself, on full-size maps. The dot is the score, the line its "
        "95 % interval over the images; an arrow points to a value beyond the scale. A positive gain means that the "
        "strategy is better; the gain is significant if its interval excludes 0."
    )
    selected = analysis.get("chosen", {}).get("select")
    return Section(explanation, interval_table(("strategy", analysis["metric"]), _valued(rows), further, selected))


def rules(analysis: Values) -> Section:
    """Combination rules with scores and intervals."""
    rows = _best_first(analysis["rules"], analysis)
    further: dict[str, Sequence[str]] = {key: numbers([row.get(key) for row in rows]) for key in ("nll", "ece")}
    explanation = (
        "Combination rules for the selected members. For each fold, members and rule are fitted on the other folds, "
        "without calibration of the ensemble. The score is measured on the fold itself: on a random sample of pixels "
        "if the metric is a sum over pixels, otherwise on the stored small maps."
    )
    if any(map(any, further.values())):
        explanation += " nll and ece describe the probabilities: lower is better."
    selected = analysis.get("chosen", {}).get("combine")
    return Section(explanation, interval_table(("rule", analysis["metric"]), _valued(rows), further, selected))


def members(analysis: Values) -> Section:
    """Score, cost and contribution of every member."""
    rows = _best_first(analysis["members"], analysis)
    timed = [row for row in rows if row.get("score") is not None and row.get("milliseconds") is not None]
    points = Series(
        "members", [(row["milliseconds"], row["score"]) for row in timed], "first", "dots", [r["name"] for r in timed]
    )
    drawing = figure(_score_against_time([points, *_ensemble_point(analysis)], analysis, 300)) if timed else ""
    if "evaluated" in analysis:
        explanation = "Score of the ensemble's members, each alone, on the same images, and its weight in the ensemble."
    else:
        explanation = (
            "Score of each single member on all validation images (its best epoch was selected on them), its cost, and "
            "its weight in the ensemble. Leave-one-out is the loss of cross-fitted score without the member; a value "
            "near 0 or below means that the member is not needed."
        )
    return Section(explanation, split(drawing, _member_table(rows, analysis)))


def pareto(analysis: Values) -> Section:
    """Best score for each amount of time."""
    rows = sorted(analysis["pareto"], key=lambda row: row["milliseconds"])
    points = [(row["milliseconds"], row["score"]) for row in rows]
    labels = [row["members"][0] if len(row["members"]) == 1 else f"{len(row['members'])} members" for row in rows]
    front = figure(_score_against_time([Series("", points, "first", "steps", labels)], analysis, 280))
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
    weights = {"names": shown["names"], "weights": [_vector(row.get("weights", [])) for row in rows]}
    vectors = fold("Weights of the candidates", column_table(weights)) if any(weights["weights"]) else ""
    return Section(explanation, split(front, column_table(shown)) + vectors)


def _vector(values: Sequence[float]) -> str:
    return ", ".join(numbers(values))


def _valued(rows: Sequence[Values]) -> list[Values]:
    return [{**row, "value": row.get("score")} for row in rows]


def _score_against_time(series: Sequence[Series], analysis: Values, height: int) -> str:
    return chart(series, ChartAxis("ms per image", wide=True), ChartAxis(analysis["metric"]), (460, height))


def _best_first(rows: Sequence[Values], analysis: Values) -> list[Values]:
    """Rows sorted by score, best first; rows without a score last."""
    sign = -1 if analysis["higher_is_better"] else 1
    return sorted(rows, key=lambda row: (row.get("score") is None, sign * (row.get("score") or 0)))


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
        "state": ["" if row.get("state") == "done" else row.get("state", "") for row in rows],
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
