"""The top of a run's report: the selected ensemble, its scores and gains, and warnings, in words."""

from densemble.report.html_page import Values, escape, strong, with_code
from densemble.report.rounding import gain, intervals, number

_REFERENCES = {"best": "the best single member", "all": "the mean of all members"}
"""Strategies that the selected one is compared with: name -> description."""


def headline(analysis: Values) -> str:
    """Run, task, number of images and metric."""
    date = f", written {escape(analysis['made'])}" if analysis.get("made") else ""
    metric, better = escape(analysis["metric"]), "higher" if analysis["higher_is_better"] else "lower"
    return (
        f"<h1>{escape(analysis['run'])}</h1>\n<p>{escape(analysis['task'])}, {analysis['pictures']:,} validation images"
        f"{date}. Scores are <b>{metric}</b>: {better} is better.</p>"
    )


def overview(analysis: Values) -> str:
    """The selected ensemble with its scores and cost; empty if there is none."""
    if "chosen" not in analysis:
        return ""
    paragraphs = [_selection(analysis), _cross_fitted(analysis), _cost(analysis["chosen"]), _fitted_scores(analysis)]
    return f'<div class="overview">{"".join(f"<p>{text}</p>" for text in paragraphs if text)}</div>'


def warnings(analysis: Values) -> str:
    """Warnings about the ensemble and its members, one box each."""
    boxes = [
        *_baseline_warnings(analysis),
        *_gain_warnings(analysis),
        *_list_warning(
            "Members that did not finish",
            [
                f"{escape(row['name'])}: {escape(row['state'])}"
                for row in analysis.get("members", [])
                if row.get("state", "done") != "done"
            ],
        ),
        *_list_warning(
            "Members that were left out",
            [f"{strong(row['name'])}: {with_code(row['reason'])}" for row in analysis.get("dropped", [])],
        ),
    ]
    return "".join(f'<div class="problem warning"><h3>{escape(title)}</h3>{body}</div>' for title, body in boxes)


def _selected_strategy(analysis: Values) -> Values | None:
    """Row of the strategy that selected the ensemble; ``None`` if strategies were not compared."""
    select = analysis.get("chosen", {}).get("select")
    return next((row for row in analysis.get("strategies", []) if row["name"] == select), None)


def _selection(analysis: Values) -> str:
    chosen = analysis["chosen"]
    used = {name: share for name, share in chosen["weights"].items() if share > 0}
    total = f" of {len(analysis['members'])}" if "members" in analysis else ""
    shares = ", ".join(
        f"{escape(name)} ({share:.0%})" for name, share in sorted(used.items(), key=lambda item: -item[1])
    )
    plural = "members were" if len(used) > 1 or total else "member was"
    return (
        f"{strong(f'{len(used)}{total} {plural} selected')} by {strong(chosen['select'])} and combined by "
        f"{strong(chosen['combine'])}: {shares}."
    )


def _cross_fitted(analysis: Values) -> str:
    """The cross-fitted score and the parts of its gain."""
    crossed = analysis.get("cross_fitted")
    if crossed is None:
        return (
            "There are too few validation images for a cross-fitted score. The scores below were measured on the "
            "images that the ensemble was fitted on; they are optimistic."
        )
    [(score, span)] = intervals([crossed["score"]], "value")
    interval = f" (95 % interval {span})" if span else ""
    shown = strong(f"{analysis['metric']} {score or 'undefined'}")
    sentences = [
        f"The cross-fitted score is {shown}{interval}, measured with {escape(crossed['folds'])}. For each fold, "
        "members, weights, rule and calibration were fitted on the other folds. Only the best epoch of each member "
        "was selected on all of these images."
    ]
    parts = crossed["gain"]
    if parts["total"].get("value") is not None:
        sentences.append(
            f"Gain over the best single member as trained: {strong(gain(parts['total']))}; by selection and "
            f"combination {gain(parts['selection'])}, by calibration {gain(parts['calibration'])}."
        )
    sentences += [
        f"Gain over {reference}, fitted in the same way: {strong(gain(values))}."
        for reference, values in _gains(analysis)
        if values.get("value") is not None
    ]
    return " ".join(sentences)


def _gains(analysis: Values) -> list[tuple[str, Values]]:
    """Gains of the selected strategy over each reference except itself; empty if strategies were not compared."""
    row = _selected_strategy(analysis)
    if row is None:
        return []
    return [
        (reference, row.get(f"gain_over_{name}") or {})
        for name, reference in _REFERENCES.items()
        if row["name"] != name
    ]


def _cost(chosen: Values) -> str:
    milliseconds = chosen.get("milliseconds")
    return "" if milliseconds is None else f"It takes {strong(f'{number(milliseconds)} ms')} per image."


def _fitted_scores(analysis: Values) -> str:
    """Scores of the artifact on all validation images."""
    scores = [
        f"{escape(name)} {number(value)}"
        for name, value in analysis["chosen"].get("val", {}).items()
        if isinstance(value, int | float)
    ]
    if not scores:
        return ""
    return (
        '<span class="quiet">Scores of the artifact on all validation images (fitted on these images; equal to '
        f"<code>densemble evaluate --split val</code>): {' · '.join(scores)}.</span>"
    )


def _gain_warnings(analysis: Values) -> list[tuple[str, str]]:
    """Warnings for gains that are negative, zero or uncertain."""
    boxes = []
    for reference, values in _gains(analysis):
        value, low, high = (values.get(name) for name in ("value", "low", "high"))
        if value is None or low is None or high is None or low > 0:
            continue
        if high < 0:
            boxes.append((f"Worse than {reference}", f"<p>The gain is {escape(gain(values))}.</p>"))
        elif low == high == 0:
            boxes.append((f"The same as {reference}", "<p>Both have the same score on every image.</p>"))
        else:
            text = f"<p>The interval of the gain, {escape(gain(values))}, includes 0: the gain may be chance.</p>"
            boxes.append((f"Not significantly better than {reference}", text))
    return boxes


def _baseline_warnings(analysis: Values) -> list[tuple[str, str]]:
    """Warnings if the best baseline, a prediction without training, is as good as the ensemble or members."""
    sign = 1 if analysis["higher_is_better"] else -1
    baselines = [row for row in analysis.get("baselines", []) if row.get("score") is not None]
    if not baselines:
        return []
    best = max(baselines, key=lambda row: sign * row["score"])
    description = f"The baseline {strong(best['name'])} scores {number(best['score'])} without any training"

    def is_poor(score: float | None) -> bool:
        return score is not None and sign * (score - best["score"]) <= 0

    boxes = []
    if is_poor(analysis.get("cross_fitted", {}).get("score", {}).get("value")):
        boxes.append(("The ensemble is no better than a baseline", f"<p>{description}.</p>"))
    poor = [row["name"] for row in analysis.get("members", []) if is_poor(row.get("score"))]
    if poor:
        text = f"<p>{description}. Members that are not better: {escape(', '.join(poor))}.</p>"
        boxes.append(("Members that are no better than a baseline", text))
    return boxes


def _list_warning(title: str, items: list[str]) -> list[tuple[str, str]]:
    return [(title, f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>")] if items else []
