"""Report sections about trust: calibration, risk and coverage, guarantees."""

from densemble.markup import escape
from densemble.report.figures import ChartAxis, Series, Style, chart, count_bars
from densemble.report.html_page import Section, Values, column_table, figure, fold, strong, table
from densemble.report.rounding import number, numbers, plain

_UNIT = (0.0, 1.0)
_MEASURES = {
    "ece": "expected calibration error",
    "classwise_ece": "class-wise calibration error",
    "brier": "Brier score",
    "nll": "negative log-likelihood",
}
_STATED = {
    "kind", "miscoverage", "risk", "confidence", "promised", "coverage", "low", "high", "checked_on", "distribution",
}  # fmt: skip
"""Fields of a guarantee that are not listed after its description."""
_BEFORE = {
    False: " 'Before' is without temperatures and calibration, 'after' with those fitted on the other folds.",
    True: " 'Before' is without the calibration of the ensemble, 'after' with it.",
}
"""Whether the report is that of an evaluation -> meaning of before and after."""
_COVERAGES = (1.0, 0.95, 0.9, 0.8, 0.5)
"""Shares of kept pixels in the table of risk and coverage."""


def calibration(analysis: Values) -> Section:
    """How well the probabilities or intervals of the ensemble agree with the targets."""
    values, measured = analysis["calibration"], _measured(analysis)
    if "coverage" in values:
        comparison = _coverage(values, measured)
    else:
        before = _BEFORE["evaluated" in analysis] if "before" in values else ""
        comparison = _reliability(values, f"{measured}{before}")
    return Section(comparison.explanation, comparison.body + _fitted_parameters(values))


def _measured(analysis: Values) -> str:
    """On which images calibration and uncertainty were measured."""
    if "evaluated" in analysis:
        return f"Measured on {analysis['evaluated']['images']}, at the size of the targets."
    return "Cross-fitted: measured on images that were not used for fitting, at the size of the targets."


def risk_coverage(analysis: Values) -> Section:
    """Error of the ensemble if only its most certain pixels are kept."""
    values = analysis["risk_coverage"]
    curve = [(float(x), float(y)) for x, y in values["curve"]]
    lines = [Series("most certain pixels first", curve, "first", "line")]
    if values.get("random") is not None:
        lines.append(Series("pixels in random order", [(0, values["random"]), (1, values["random"])], "third", "line"))
    top = max((y for line in lines for _, y in line.points), default=1) * 1.08 or 1.0
    drawing = chart(lines, ChartAxis("share of pixels kept", _UNIT), ChartAxis("error of kept pixels", (0.0, top)))
    facts = [
        ("Pixels ordered by", values.get("by"), ""),
        ("Area under the curve (AURC):", number(values.get("aurc")), ", lower is better"),
        ("Detection of wrong pixels (AUROC):", number(values.get("error_auroc")), ", 0.5 is chance, 1 is perfect"),
    ]
    summary = " ".join(f"{name} {strong(value)}{meaning}." for name, value, meaning in facts if value)
    explanation = (
        "Error on the most certain pixels, against the share of pixels kept. If the uncertainty is useful, the error "
        "falls when fewer pixels are kept; a curve on the dashed line means that the uncertainty does not indicate "
        f"errors. {_measured(analysis)}"
    )
    return Section(explanation, f"<p>{summary}</p>{figure(drawing, _coverage_table(curve))}")


GUARANTEE_CONDITIONS = (
    "The guarantee was fitted on validation images that were not used for anything else, on full-size maps. It "
    "holds for new images from the same distribution; it does not hold for other cameras or locations."
)


def guarantee_statement(values: Values) -> str:
    """Return what a guarantee says, from its plain description, in one sentence."""
    missed = values.get("miscoverage", values.get("risk"))
    kept = "" if missed is None else f"{100 * (1 - missed):.4g} %"
    confidence = values.get("confidence")
    sure = "" if confidence is None else f", with {100 * confidence:.4g} % confidence"
    expected = f"for at least {kept} of the pixels of a new image, on average, it contains the true"
    return {
        "conformal_set": f"Every pixel gets a set of classes; {expected} class.",
        "conformal_interval": f"Every pixel gets an interval; {expected} value.",
        "risk_control": f"On average, at least {kept} of the positive pixels of new images are marked{sure}.",
    }.get(str(values.get("kind")), "")


def guarantee(analysis: Values) -> Section:
    """The guarantee for new images like the validation images, and how it was checked."""
    values = analysis["guarantee"]
    known = {key: value for key, value in values.items() if key not in _STATED and value is not None}
    further = " ".join(
        f"{_field(key)}: {strong(plain(value))}." for key, value in known.items() if not isinstance(value, list | dict)
    )
    vectors = "".join(
        fold(_field(key), f'<p class="vector">{escape(plain(value))}</p>')
        for key, value in known.items()
        if isinstance(value, list | dict)
    )
    statement = escape(guarantee_statement(values))
    check = _evaluated_check(values) if "evaluated" in analysis else _check(values)
    return Section(GUARANTEE_CONDITIONS, f"<p>{statement} {check} {further}</p>{vectors}")


def _field(key: str) -> str:
    return escape(key.replace("pictures", "images").replace("_", " ").capitalize())


def _evaluated_check(values: Values) -> str:
    """Coverage of the guarantee on the evaluated images."""
    coverage, low, high = numbers([values.get(key) for key in ("coverage", "low", "high")])
    interval = f" (95 % interval over images: {low} to {high})" if low and high else ""
    count = "" if values.get("checked_on") is None else f" on {values['checked_on']} images"
    return f"Measured{count}: coverage {strong(coverage)}{interval}.{_shortfall(values)}"


def _shortfall(values: Values) -> str:
    short = values.get("high") is not None and values["high"] < values["promised"]
    return ' <span class="verdict error">This is less than requested.</span>' if short else ""


def _check(values: Values) -> str:
    """Coverage of the same guarantee, fitted on one half of its images and measured on the other half."""
    coverage, low, high = numbers([values.get(key) for key in ("coverage", "low", "high")])
    if not coverage:
        return ""
    interval = f" (95 % interval over images: {low} to {high})" if low and high else ""
    images = "" if values.get("checked_on") is None else f", {values['checked_on']} images in total"
    return (
        "Check: fitted on one half of its images (alternating blocks) and measured on the other half, for both halves, "
        f"on full-size maps{images}: coverage {strong(coverage)}{interval}.{_shortfall(values)}"
    )


def _coverage_table(curve: list[tuple[float, float]]) -> str:
    """Errors at a few shares of kept pixels."""
    if not curve:
        return ""
    nearest = {min(curve, key=lambda point: abs(point[0] - coverage)) for coverage in _COVERAGES}
    points = sorted(nearest, reverse=True)
    return column_table({"pixels kept": [f"{x:.0%}" for x, _ in points], "error": numbers([y for _, y in points])})


def _reliability(values: Values, measured: str) -> Section:
    sides = [(name, values[name]) for name in ("before", "after") if name in values]
    rows = [
        (label, *numbers([side.get(key) for _, side in sides]))
        for key, label in _MEASURES.items()
        if any(side.get(key) is not None for _, side in sides)
    ]
    figures = "".join(_diagram(f"{name} calibration", side["table"]) for name, side in sides if side.get("table"))
    explanation = (
        "Of the predictions with a confidence of 80 %, 80 % should be correct: the dots should be on the diagonal. "
        "Below it, the ensemble is overconfident; above it, it is underconfident. The bars show the "
        f"number of pixels per dot. {measured}"
    )
    tables = "".join(_bins(name, side) for name, side in sides if side.get("table"))
    scores = table(["lower is better", *(name for name, _ in sides)], rows)
    return Section(explanation, f'{scores}<div class="figures">{figures}</div>{tables}')


def _diagram(title: str, bins: list[Values]) -> str:
    known = [row for row in bins if row["count"]]
    dots = Series("", [(row["confidence"], row["accuracy"]) for row in known])
    drawn = chart([dots], ChartAxis("confidence", _UNIT), ChartAxis("accuracy", _UNIT), (360, 320), diagonal=True)
    return f"<figure><figcaption>{title}</figcaption>{drawn}{count_bars(bins, 'pixels', (360, 110))}</figure>"


def _bins(name: str, side: Values) -> str:
    bins = side["table"]
    columns = {
        "confidence": [f"{row['low']:.3f} to {row['high']:.3f}" for row in bins],
        "pixels": [f"{row['count']:,}" for row in bins],
        "mean confidence": numbers([row["confidence"] if row["count"] else None for row in bins]),
        "accuracy": numbers([row["accuracy"] if row["count"] else None for row in bins]),
    }
    return fold(f"Table of the dots, {name} calibration", column_table(columns))


def _coverage(values: Values, measured: str) -> Section:
    rows = sorted(values["coverage"], key=lambda row: row["nominal"])
    columns = {"nominal": numbers([row["nominal"] for row in rows])}
    lines = []
    styles: dict[str, Style] = {"before": "second", "after": "first"}
    for key, style in styles.items():
        if rows and key in rows[0]:
            lines.append(Series(key, [(row["nominal"], row[key]) for row in rows], style))
            columns[key] = numbers([row[key] for row in rows])
    drawing = chart(
        lines, ChartAxis("nominal coverage", _UNIT), ChartAxis("true coverage", _UNIT), (360, 320), diagonal=True
    )
    explanation = (
        "A 90 % interval should contain the true value for 90 % of the pixels: the dots should be on the diagonal. "
        f"Below it, the intervals are too narrow; above it, they are too wide. {measured}"
    )
    return Section(explanation, figure(drawing, column_table(columns)))


def _fitted_parameters(values: Values) -> str:
    """Temperatures of the members and calibration of the ensemble; vectors are behind folds."""
    parts = []
    temperatures = values.get("temperatures")
    if temperatures:
        text = f"Temperatures of the members (above 1: the member was overconfident): {plain(temperatures)}."
        parts.append(f'<p class="quiet">{escape(text)}</p>')
    if values.get("ensemble"):
        fitted = {key: value for key, value in values["ensemble"].items() if key != "kind"}
        vectors = {key: value for key, value in fitted.items() if isinstance(value, list | dict)}
        numbers_only = {key: value for key, value in fitted.items() if key not in vectors}
        text = ", ".join([str(values["ensemble"]["kind"]), *([plain(numbers_only)] if numbers_only else [])])
        parts.append(f'<p class="quiet">Calibration of the ensemble: {escape(text)}.</p>')
        listed = "".join(
            f'<p class="vector">{escape(key)}: {escape(plain(value))}</p>' for key, value in vectors.items()
        )
        parts.append(fold("Fitted vectors of the calibration", listed))
    return "".join(parts)
