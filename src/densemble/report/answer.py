"""The answer of a report: score, gains, members and cost of the ensemble, and warnings."""

from densemble.markup import Markup, escape
from densemble.report.html_page import Values, strong, with_code
from densemble.report.interval_table import interval_table
from densemble.report.rounding import gain, intervals, number


def headline(analysis: Values) -> str:
    """Run or artifact, task, images and metric."""
    date = f", {escape(analysis['made'])}" if analysis.get("made") else ""
    metric, better = escape(analysis["metric"]), "higher" if analysis["higher_is_better"] else "lower"
    return (
        f"<h1>{escape(analysis['run'])}</h1>\n<p>{escape(analysis['task'])}, {escape(images_of(analysis))}{date}. "
        f"Scores are <b>{metric}</b>: {better} is better.</p>"
    )


def images_of(analysis: Values) -> str:
    """The images that the report is about, in words."""
    count = f"{analysis['pictures']:,}"
    return str(analysis["evaluated"]["images"]) if "evaluated" in analysis else f"{count} validation images"


def overview(analysis: Values) -> str:
    """Score, gain, members and cost as tiles, the gains as a table, and how they were measured."""
    if "chosen" not in analysis:
        return ""
    tiles = "".join(tile for tile in (_score_tile(analysis), _gain_tile(analysis), _member_tile(analysis),
                                      _cost_tile(analysis["chosen"])) if tile)  # fmt: skip
    paragraphs = "".join(f"<p>{text}</p>" for text in (_measured(analysis), _fitted_scores(analysis)) if text)
    details = f'<div class="split"><div>{_gain_table(analysis)}</div><div class="text">{paragraphs}</div></div>'
    return f'<div class="overview"><div class="tiles">{tiles}</div>{details}</div>'


def _results(analysis: Values) -> Values | None:
    """Score and gains: cross-fitted, or of an evaluation; ``None`` if there are too few images."""
    results: Values | None = analysis.get("cross_fitted") or analysis.get("evaluated")
    return results if results is not None and results.get("score") else None


def _tile(label: str, large: object, *lines: str) -> str:
    text = "".join(f"<p>{line}</p>" for line in lines if line)
    return f'<div class="tile"><p class="label">{escape(label)}</p><p class="large">{escape(large)}</p>{text}</div>'


def _score_tile(analysis: Values) -> str:
    results = _results(analysis)
    if results is None:
        return ""
    [(score, span)] = intervals([results["score"]], "value")
    how = "cross-fitted" if "cross_fitted" in analysis else "ensemble"
    return _tile(f"{analysis['metric']}, {how}", score or "undefined", _interval(span))


def _gain_tile(analysis: Values) -> str:
    results = _results(analysis)
    total = {} if results is None else results["gain"].get("total", {})
    if total.get("value") is None:
        return ""
    [(value, span)] = intervals([total], "value", signed=True)
    return _tile(f"gain over {_best(results)}", value, _interval(span), _verdict(total))


def _best(results: Values | None) -> str:
    """The best member, with its name unless the analysis was written by an older version."""
    name = (results or {}).get("best_member")
    return f"the best member, {name}" if name else "the best single member"


def _interval(span: str) -> str:
    return f'95 % interval <span class="together">{escape(span)}</span>' if span else ""


def _verdict(values: Values) -> str:
    low, high = values.get("low"), values.get("high")
    if low is None or high is None:
        return ""
    if low > 0:
        return '<span class="verdict">Significant</span>: above 0.'
    if high < 0:
        return '<span class="verdict error">Worse</span>: below 0.'
    return '<span class="verdict warning">Not significant</span>: contains 0.'


def _member_tile(analysis: Values) -> str:
    chosen = analysis["chosen"]
    used = sorted(((name, share) for name, share in chosen["weights"].items() if share > 0), key=lambda item: -item[1])
    total = f" of {len(analysis['members'])}" if "members" in analysis and "evaluated" not in analysis else ""
    shares = ", ".join(f"{escape(name)} ({share:.0%})" for name, share in used)
    stack = "".join(f'<i style="flex-grow:{share:.4f}"></i>' for _, share in used)
    how = [f"selected by {strong(chosen['select'])}"] if chosen.get("select") else []
    how += [f"combined by {strong(chosen['combine'])}"] if len(used) > 1 else []
    plural = "s" if len(used) > 1 or total else ""
    text = ", ".join(how)
    return _tile(
        f"member{plural}", f"{len(used)}{total}", f'<span class="stack" aria-hidden="true">{stack}</span>{shares}',
        f"{text[:1].upper()}{text[1:]}." if text else "",
    )  # fmt: skip


def _cost_tile(chosen: Values) -> str:
    milliseconds = chosen.get("milliseconds")
    return "" if milliseconds is None else _tile("time per image", f"{number(milliseconds)} ms")


def _gain_table(analysis: Values) -> str:
    """The gain over each reference with its parts; empty without results."""
    results = _results(analysis)
    if results is None:
        return ""
    parts = results["gain"]
    named = [(f"over {_best(results)}", parts.get("total")),
             (_part("by selection and combination"), parts.get("selection")),
             (_part("by calibration"), parts.get("calibration"))]  # fmt: skip
    named += [(f"over {reference}", values) for reference, values in _gains(analysis)[1:]]
    rows = [{"name": name, **values} for name, values in named if values and values.get("value") is not None]
    return interval_table((f"gain of {analysis['metric']}", "95 % interval"), rows, signed=True) if rows else ""


def _part(text: str) -> Markup:
    return Markup(f'<span class="quiet">of it {escape(text)}</span>')


def _measured(analysis: Values) -> str:
    """How the scores were measured."""
    if "evaluated" in analysis:
        return escape(analysis["evaluated"]["basis"])
    crossed = analysis.get("cross_fitted")
    if crossed is None:
        return (
            "There are too few validation images for a cross-fitted score. The scores below were measured on the "
            "images that the ensemble was fitted on; they are optimistic."
        )
    return (
        f"Cross-fitted with {escape(crossed['folds'])}: for each fold, members, weights, rule and calibration were "
        "fitted on the other folds. Only the best epoch of each member was selected on all of these images."
    )


def _selected_strategy(analysis: Values) -> Values | None:
    """Row of the strategy that selected the ensemble; ``None`` if strategies were not compared."""
    select = analysis.get("chosen", {}).get("select")
    return next((row for row in analysis.get("strategies", []) if row["name"] == select), None)


def _gains(analysis: Values) -> list[tuple[str, Values]]:
    """Gains of the ensemble over the best member and over the mean of all, except over itself."""
    results, row = _results(analysis), _selected_strategy(analysis)
    if results is None:
        return []
    gains = [(_best(results), results["gain"].get("total") or {})]
    if row is not None and row["name"] != "all":
        gains.append(("the mean of all members, fitted in the same way", row.get("gain_over_all") or {}))
    return gains


def _fitted_scores(analysis: Values) -> str:
    """Scores of the artifact on all images."""
    scores = [
        f"{escape(name)} {number(value)}"
        for name, value in analysis["chosen"].get("val", {}).items()
        if isinstance(value, int | float)
    ]
    if not scores:
        return ""
    where = f"on {escape(images_of(analysis))}"
    if "evaluated" not in analysis:
        where = (
            "on all validation images (fitted on these images; equal to <code>densemble evaluate --split val</code>)"
        )
    return f'<span class="quiet">Scores of the artifact {where}: {" · ".join(scores)}.</span>'


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
    results = _results(analysis)
    if results is not None and is_poor(results["score"].get("value")):
        boxes.append(("The ensemble is no better than a baseline", f"<p>{description}.</p>"))
    poor = [row["name"] for row in analysis.get("members", []) if is_poor(row.get("score"))]
    if poor:
        text = f"<p>{description}. Members that are not better: {escape(', '.join(poor))}.</p>"
        boxes.append(("Members that are no better than a baseline", text))
    return boxes


def _list_warning(title: str, items: list[str]) -> list[tuple[str, str]]:
    return [(title, f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>")] if items else []
