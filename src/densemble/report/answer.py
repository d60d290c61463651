"""The top of a run's report: what was chosen, what it is worth, and what to be careful about, in plain words."""

from densemble.report.html_page import Values, escape, strong, with_code
from densemble.report.rounding import gain, intervals, number

_OPPONENTS = {"best": "the best single member", "all": "the mean of all members"}
"""What a strategy is compared with, by the name that it has as a strategy itself."""


def headline(analysis: Values) -> str:
    """What was analysed."""
    made = f", made {escape(analysis['made'])}" if analysis.get("made") else ""
    metric, better = escape(analysis["metric"]), "higher" if analysis["higher_is_better"] else "lower"
    return (
        f"<h1>{escape(analysis['run'])}</h1>\n<p>{escape(analysis['task'])}, {analysis['pictures']:,} validation images"
        f"{made}. Scores are <b>{metric}</b>: {better} is better.</p>"
    )


def answer(analysis: Values) -> str:
    """What was chosen and what it is worth; empty where nothing was chosen."""
    if "chosen" not in analysis:
        return ""
    said = [_choice(analysis), _worth(analysis), _cost(analysis["chosen"]), _on_all(analysis)]
    return f'<div class="answer">{"".join(f"<p>{part}</p>" for part in said if part)}</div>'


def warnings(analysis: Values) -> str:
    """What to be careful about, each in a box of its own."""
    found = [*_worthless(analysis), *_doubtful_gains(analysis), *_poor_members(analysis), *_unfinished(analysis)]
    boxes = [f'<div class="problem warning"><h3>{escape(title)}</h3>{text}</div>' for title, text in found]
    return "".join(boxes)


def chosen_strategy(analysis: Values) -> Values | None:
    """The row of the strategy that selected the ensemble; ``None`` where strategies were not compared."""
    select = analysis.get("chosen", {}).get("select")
    return next((row for row in analysis.get("strategies", []) if row["name"] == select), None)


def _choice(analysis: Values) -> str:
    chosen = analysis["chosen"]
    used = {name: share for name, share in chosen["weights"].items() if share > 0}
    of = f" of {len(analysis['members'])}" if "members" in analysis else ""
    shares = ", ".join(
        f"{escape(name)} ({share:.0%})" for name, share in sorted(used.items(), key=lambda item: -item[1])
    )
    plural = "members were" if len(used) > 1 or of else "member was"
    return (
        f"{strong(f'{len(used)}{of} {plural} chosen')} by {strong(chosen['select'])} and combined by "
        f"{strong(chosen['combine'])}: {shares}."
    )


def _worth(analysis: Values) -> str:
    """The cross-fitted score and what its gain is made of."""
    crossed = analysis.get("cross_fitted")
    if crossed is None:
        return (
            "There are too few held-out images to measure it on images that played no part in making it: the scores "
            "below are of images that it was fitted on, and flatter it."
        )
    [(score, span)] = intervals([crossed["score"]], "value")
    interval = f" (95 % interval {span})" if span else ""
    scored = strong(f"{analysis['metric']} {score or 'undefined'}")
    said = [
        f"Cross-fitted, it scores {scored}{interval}: {escape(crossed['folds'])}; for each fold, members, weights, "
        "rule and calibration were fitted on the other folds. Only the best epoch of each member was chosen on all of "
        "these images."
    ]
    parts = crossed["gain"]
    if parts["total"].get("value") is not None:
        said.append(
            f"Gain over the best single member as trained: {strong(gain(parts['total']))}; by selection and "
            f"combination {gain(parts['selection'])}, by calibration {gain(parts['calibration'])}."
        )
    row = chosen_strategy(analysis)
    pairs = [(opponent, values) for opponent, values in (_gains(row) if row else []) if values.get("value") is not None]
    said += [f"Gain over {opponent}, made the same way: {strong(gain(values))}." for opponent, values in pairs]
    return " ".join(said)


def _gains(row: Values) -> list[tuple[str, Values]]:
    """What a strategy is compared with, and its gain over that; nothing is compared with itself."""
    return [
        (opponent, row.get(f"gain_over_{name}") or {}) for name, opponent in _OPPONENTS.items() if row["name"] != name
    ]


def _cost(chosen: Values) -> str:
    milliseconds = chosen.get("milliseconds")
    return "" if milliseconds is None else f"It takes {strong(f'{number(milliseconds)} ms')} per image."


def _on_all(analysis: Values) -> str:
    """Scores of the saved file on all validation images."""
    scores = {
        name: value for name, value in analysis["chosen"].get("val", {}).items() if isinstance(value, int | float)
    }
    said = " · ".join(f"{escape(name)} {number(value)}" for name, value in scores.items())
    if not said:
        return ""
    return (
        '<span class="quiet">The saved file on all validation images, which it was fitted on (what <code>densemble '
        f"evaluate --split val</code> prints): {said}.</span>"
    )


def _doubtful_gains(analysis: Values) -> list[tuple[str, str]]:
    row = chosen_strategy(analysis)
    found = []
    for opponent, values in _gains(row) if row else []:
        value, low, high = (values.get(name) for name in ("value", "low", "high"))
        if value is None or low is None or high is None or low > 0:
            continue
        if high < 0:
            found.append((f"Worse than {opponent}", f"<p>By {escape(gain(values))}: the choice did harm.</p>"))
        elif low == high == 0:
            found.append((f"The same as {opponent}", "<p>On every image both score the same.</p>"))
        else:
            said = f"<p>The gain, {escape(gain(values))}, has an interval that includes 0: it may be chance.</p>"
            found.append((f"Not surely better than {opponent}", said))
    return found


def _worthless(analysis: Values) -> list[tuple[str, str]]:
    """Whether a prediction without any training equals the ensemble."""
    crossed, best = analysis.get("cross_fitted"), _best_baseline(analysis)
    row = None if crossed is None else {"score": crossed["score"]["value"]}
    if row is None or best is None or _above(row, best, analysis):
        return []
    return [("The ensemble is no better than a baseline", f"<p>{_described(best)}.</p>")]


def _poor_members(analysis: Values) -> list[tuple[str, str]]:
    """Members that a prediction without any training equals."""
    best = _best_baseline(analysis)
    poor = [row["name"] for row in analysis.get("members", []) if best and not _above(row, best, analysis)]
    if best is None or not poor:
        return []
    said = f"<p>{_described(best)}; not better than that: {escape(', '.join(poor))}.</p>"
    return [("Members that are no better than a baseline", said)]


def _best_baseline(analysis: Values) -> Values | None:
    sign = 1 if analysis["higher_is_better"] else -1
    known = [row for row in analysis.get("baselines", []) if row.get("score") is not None]
    return max(known, key=lambda row: sign * row["score"], default=None)


def _above(row: Values, baseline: Values, analysis: Values) -> bool:
    """Whether a row is better than a baseline, or has no score to tell by."""
    if row.get("score") is None:
        return True
    difference = row["score"] - baseline["score"]
    return bool(difference > 0 if analysis["higher_is_better"] else difference < 0)


def _described(baseline: Values) -> str:
    return f"The baseline {strong(baseline['name'])} scores {number(baseline['score'])} without any training"


def _unfinished(analysis: Values) -> list[tuple[str, str]]:
    found = []
    states = [row for row in analysis.get("members", []) if row.get("state", "done") != "done"]
    if states:
        items = "".join(f"<li>{escape(row['name'])}: {escape(row['state'])}</li>" for row in states)
        found.append(("Members that did not finish", f"<ul>{items}</ul>"))
    dropped = analysis.get("dropped", [])
    if dropped:
        items = "".join(f"<li><b>{escape(row['name'])}</b>: {with_code(row['reason'])}</li>" for row in dropped)
        found.append(("Members that were dropped", f"<ul>{items}</ul>"))
    return found
