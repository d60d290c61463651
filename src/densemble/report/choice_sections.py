"""Sections of a run's report about selection: strategies, rules, members and what they cost."""

from collections.abc import Sequence

from densemble.report.figures import Axis, Series, chart, interval_axis, interval_bar, padded
from densemble.report.html_page import Markup, Values, escape, note, strong, table
from densemble.report.rounding import intervals, numbers

_GAINS = {"gain_over_best": "gain over best single", "gain_over_all": "gain over mean of all"}


def strategies(analysis: Values) -> str:
    """Ways of choosing, with intervals and gains."""
    rows = _best_first(analysis["strategies"], analysis)
    select = analysis.get("chosen", {}).get("select")
    extra: dict[str, Sequence[str]] = {
        "members": [str(row.get("members", "")) for row in rows],
        "ms": numbers([row.get("milliseconds") for row in rows]),
        **{name: _gains(rows, key) for key, name in _GAINS.items()},
    }
    said = (
        "Strategies for selecting members. Each was followed by the same rule and calibration, fitted on the other "
        "folds and measured on the fold that was left out, on maps as served. The dot is the score, the line its 95 % "
        "interval over the images; a gain is positive where the strategy is better, and sure where its interval "
        "excludes 0."
    )
    return note(said) + _intervals("strategy", rows, extra, select)


def rules(analysis: Values) -> str:
    """Ways of combining the maps."""
    rows = _best_first(analysis["rules"], analysis)
    extra: dict[str, Sequence[str]] = {key: numbers([row.get(key) for row in rows]) for key in ("nll", "ece")}
    said = (
        "Rules for combining the members that were selected on the other folds, without the ensemble's calibration, "
        "measured on the fold that was left out: on a random sample of its pixels where the metric is a sum over "
        "pixels, else on small maps. nll and ece describe the probabilities: lower is better."
    )
    return note(said) + _intervals("rule", rows, extra, analysis.get("chosen", {}).get("combine"))


def members(analysis: Values) -> str:
    """Every member: what it scores, costs and adds."""
    rows = _best_first(analysis["members"], analysis)
    timed = [row for row in rows if row.get("score") is not None and row.get("milliseconds") is not None]
    points = Series(
        "members", [(row["milliseconds"], row["score"]) for row in timed], "first", "dots", [r["name"] for r in timed]
    )
    figure = _score_against_time([points, *_ensemble_point(analysis)], analysis, 320) if timed else ""
    said = (
        "What each member scores alone on all validation images, on which its best epoch was chosen, what it costs, "
        "and its weight in the saved ensemble. Leave-one-out is what the cross-fitted ensemble loses without it: near "
        "0 or negative means that it could be left out."
    )
    return note(said) + figure + _member_table(rows, analysis)


def pareto(analysis: Values) -> str:
    """The best score for every amount of time."""
    rows = sorted(analysis["pareto"], key=lambda row: row["milliseconds"])
    points = [(row["milliseconds"], row["score"]) for row in rows]
    labels = [row["members"][0] if len(row["members"]) == 1 else f"{len(row['members'])} members" for row in rows]
    front = _score_against_time([Series("", points, "first", "steps", labels)], analysis, 300)
    texts = zip(
        [str(len(row["members"])) for row in rows],
        numbers([row["milliseconds"] for row in rows]),
        numbers([row["score"] for row in rows]),
        [" + ".join(row["members"]) for row in rows],
        strict=True,
    )
    said = (
        "Ensembles that no other beats at their price, without calibration, on small maps of the images that they were "
        "selected on: the scores flatter, their order is what counts."
    )
    return note(said) + front + table(["members", "ms", analysis["metric"], "which"], texts)


def _score_against_time(series: Sequence[Series], analysis: Values, height: int) -> str:
    drawn = chart(series, Axis("ms per image"), Axis(analysis["metric"]), (480, height))
    return f'<div class="figures"><figure>{drawn}</figure></div>'


def _best_first(rows: Sequence[Values], analysis: Values) -> list[Values]:
    """In order of their scores; those without one last."""
    sign = -1 if analysis["higher_is_better"] else 1
    return sorted(rows, key=lambda row: (row.get("score") is None, sign * (row.get("score") or 0)))


def _intervals(kind: str, rows: Sequence[Values], extra: dict[str, Sequence[str]], chosen: object) -> str:
    """A table whose rows carry their intervals on one common scale; empty columns are left out."""
    ends = [row[key] for row in rows for key in ("score", "low", "high") if row.get(key) is not None]
    within = padded(ends)
    columns = {name: cells for name, cells in extra.items() if any(cells)}
    bars = [interval_bar(row.get("score"), row.get("low"), row.get("high"), within) for row in rows]
    names = [strong(f"{row['name']} (chosen)") if row["name"] == chosen else row["name"] for row in rows]
    scores = [_with_interval(value, span) for value, span in intervals(rows, "score")]
    body = list(zip(names, scores, bars, *columns.values(), strict=True))
    axis: tuple[object, ...] = ("", "", interval_axis(within), *("" for _ in columns))
    return table([kind, "score", "", *columns], [*body, axis])


def _gains(rows: Sequence[Values], key: str) -> list[Markup]:
    return [
        _with_interval(value, span) for value, span in intervals([row.get(key) or {} for row in rows], "value", True)
    ]


def _with_interval(value: str, span: str) -> Markup:
    """A value with its interval small below it."""
    below = f'<br><span class="spread">{escape(span)}</span>' if span else ""
    return Markup(escape(value) + below)


def _ensemble_point(analysis: Values) -> list[Series]:
    score = analysis.get("cross_fitted", {}).get("score", {}).get("value")
    milliseconds = analysis.get("chosen", {}).get("milliseconds")
    if score is None or milliseconds is None:
        return []
    return [Series("ensemble", [(milliseconds, score)], "second", "dots", ["ensemble, cross-fitted"])]


def _member_table(rows: Sequence[Values], analysis: Values) -> str:
    millions = [None if row.get("parameters") is None else row["parameters"] / 1e6 for row in rows]
    baselines = _best_first(analysis.get("baselines", []), analysis)
    scores = numbers([row.get("score") for row in [*rows, *baselines]])
    columns: dict[str, list[str] | list[Markup]] = {
        "ms": numbers([row.get("milliseconds") for row in rows]),
        "million parameters": numbers(millions, 4),
        "share": [_share(row.get("share")) for row in rows],
        "leave-one-out": numbers([row.get("leave_one_out") for row in rows], 2, signed=True),
        "state": [row.get("state", "") for row in rows],
    }
    kept = {name: cells for name, cells in columns.items() if any(cells)}
    named = [row["name"] for row in rows]
    body: list[tuple[object, ...]] = list(zip(named, scores[: len(rows)], *kept.values(), strict=True))
    for row, score in zip(baselines, scores[len(rows) :], strict=True):
        name = Markup(f'<span class="quiet">baseline: {escape(row["name"])}</span>')
        body.append((name, score, *("" for _ in kept)))
    return table(["member", analysis["metric"], *kept], body)


def _share(share: float | None) -> Markup:
    if share is None:
        return Markup("")
    bar = f'<span class="bar" style="width:{4 * share:.2f}rem"></span>' if share > 0 else ""
    return Markup(f'{share:.0%} <span class="track">{bar}</span>')
