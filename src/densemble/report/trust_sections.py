"""Sections of a run's report about trust: calibration, risk and coverage, guarantees."""

from densemble.report.figures import Axis, Series, chart, count_bars
from densemble.report.html_page import Values, escape, note, strong, table
from densemble.report.rounding import number, numbers, plain

_UNIT = (0.0, 1.0)
_MEASURES = {
    "ece": "expected calibration error",
    "classwise_ece": "class-wise calibration error",
    "brier": "Brier score",
    "nll": "negative log-likelihood",
}
_KEPT = (0.95, 0.9, 0.8, 0.5)


def calibration(analysis: Values) -> str:
    """Whether the ensemble is as sure as it is right."""
    values = analysis["calibration"]
    shown = _coverage(values) if "coverage" in values else _reliability(values)
    return shown + _settings(values)


def risk_coverage(analysis: Values) -> str:
    """What is gained by answering only where the ensemble is sure."""
    values = analysis["risk_coverage"]
    curve = [(float(x), float(y)) for x, y in values["curve"]]
    lines = [Series("surest pixels first", curve, "first", "line")]
    if values.get("random") is not None:
        lines.append(Series("pixels in random order", [(0, values["random"]), (1, values["random"])], "third", "line"))
    top = max((y for one in lines for _, y in one.points), default=1) * 1.08 or 1.0
    figure = chart(lines, Axis("share of pixels kept", _UNIT), Axis("error of those kept", (0.0, top)))
    facts = [
        ("Ordered by", values.get("by"), ""),
        ("Area under the curve (AURC):", number(values.get("aurc")), ", lower is better"),
        ("Telling wrong pixels from right (AUROC):", number(values.get("error_auroc")), ", 0.5 is chance, 1 perfect"),
    ]
    told = " ".join(f"{name} {strong(value)}{meaning}." for name, value, meaning in facts if value)
    said = (
        "Keep only the pixels that the ensemble is surest of, and the error should fall. A curve that stays on the "
        "dashed line means that the uncertainty says nothing about mistakes. Cross-fitted, at the targets' own size."
    )
    return f'{note(said)}<p>{told}</p><div class="figures"><figure>{figure}</figure><div>{_kept(curve)}</div></div>'


def guarantee(analysis: Values) -> str:
    """What is guaranteed for images like the held-out ones, and how it was checked."""
    values = analysis["guarantee"]
    missed = values.get("miscoverage", values.get("risk"))
    kept = "" if missed is None else f"{100 * (1 - missed):.4g} %"
    confidence = values.get("confidence")
    sure = "" if confidence is None else f", with {100 * confidence:.4g} % confidence"
    most = f"of a new image's pixels, {kept} or more are expected to have their true"
    promised = {
        "conformal_set": f"Every pixel gets a set of classes; {most} class in it.",
        "conformal_interval": f"Every pixel gets an interval; {most} value in it.",
        "risk_control": f"Of what is there in new images, {kept} or more is marked, in the mean over images{sure}.",
    }.get(str(values.get("kind")), "")
    told = (
        "kind",
        "miscoverage",
        "risk",
        "confidence",
        "promised",
        "coverage",
        "low",
        "high",
        "checked_on",
        "distribution",
    )
    rest = " ".join(
        f"{escape(key.replace('_', ' ').capitalize())}: {strong(plain(value))}."
        for key, value in values.items()
        if key not in told and value is not None
    )
    said = (
        "The guarantee was fitted on validation images that nothing else was fitted on, on maps as served at the "
        "targets' own size. It holds for images drawn like these; other cameras or places void it."
    )
    return f"{note(said)}<p>{escape(promised)} {_measured(values)} {rest}</p>"


def _measured(values: Values) -> str:
    """Coverage of the same guarantee, fitted on one half of its images and measured on the other."""
    coverage, low, high = numbers([values.get(key) for key in ("coverage", "low", "high")])
    if not coverage:
        return ""
    interval = f" (95 % interval over images: {low} to {high})" if low and high else ""
    short = values.get("high") is not None and values["high"] < values["promised"]
    verdict = ' <span class="verdict error">This is less than was asked for.</span>' if short else ""
    on = "" if values.get("checked_on") is None else f", {values['checked_on']} images in all"
    return (
        "Check: fitted on one half of its images (alternating blocks) and measured on the other half, both ways round, "
        f"on maps as served{on}: coverage {strong(coverage)}{interval}.{verdict}"
    )


def _kept(curve: list[tuple[float, float]]) -> str:
    """The error at some coverages that a reader may want."""
    if not curve:
        return ""
    places = {min(curve, key=lambda point: abs(point[0] - wanted)) for wanted in (1.0, *_KEPT)}
    ordered = sorted(places, reverse=True)
    return table(
        ["pixels kept", "error"],
        zip([f"{x:.0%}" for x, _ in ordered], numbers([y for _, y in ordered]), strict=True),
    )


def _reliability(values: Values) -> str:
    sides = [(name, values[name]) for name in ("before", "after") if name in values]
    rows = [
        (label, *numbers([side.get(key) for _, side in sides]))
        for key, label in _MEASURES.items()
        if any(side.get(key) is not None for _, side in sides)
    ]
    figures = "".join(_diagram(f"{name} calibration", side["table"]) for name, side in sides if side.get("table"))
    said = (
        "When the ensemble says 80 %, it should be right 80 % of the time: the dots should lie on the diagonal. Below "
        "it the ensemble is too sure, above it too modest; the bars say how many pixels each dot stands for. Measured "
        "on all pixels at the targets' own size, on images that nothing was fitted on: 'before' without temperatures "
        "and calibration, 'after' with those fitted on the other folds."
    )
    return (
        f"{note(said)}{table(['lower is better', *(name for name, _ in sides)], rows)}"
        f'<div class="figures">{figures}</div>{"".join(_bins(name, side) for name, side in sides if side.get("table"))}'
    )


def _diagram(title: str, bins: list[Values]) -> str:
    known = [row for row in bins if row["count"]]
    dots = Series("", [(row["confidence"], row["accuracy"]) for row in known])
    drawn = chart([dots], Axis("confidence", _UNIT), Axis("accuracy", _UNIT), (360, 320), diagonal=True)
    return f"<figure><figcaption>{title}</figcaption>{drawn}{count_bars(bins, 'pixels', (360, 110))}</figure>"


def _bins(name: str, side: Values) -> str:
    bins = side["table"]
    rows = zip(
        [f"{row['low']:.3f} to {row['high']:.3f}" for row in bins],
        [f"{row['count']:,}" for row in bins],
        *(numbers([row[key] if row["count"] else None for row in bins]) for key in ("confidence", "accuracy")),
        strict=True,
    )
    shown = table(["confidence from", "pixels", "mean confidence", "accuracy"], rows)
    return f"<details><summary>The dots as numbers, {name} calibration</summary>{shown}</details>"


def _coverage(values: Values) -> str:
    rows = sorted(values["coverage"], key=lambda row: row["nominal"])
    kinds = [(key, style) for key, style in (("before", "second"), ("after", "first")) if rows and key in rows[0]]
    lines = [
        Series(key, [(row["nominal"], row[key]) for row in rows], "second" if style == "second" else "first")
        for key, style in kinds
    ]
    figure = chart(
        lines, Axis("wanted share inside", _UNIT), Axis("true share inside", _UNIT), (360, 320), diagonal=True
    )
    columns = [numbers([row[key] for row in rows]) for key in ("nominal", *(key for key, _ in kinds))]
    said = (
        "An interval for 90 % should hold the true value 90 % of the time: the dots should lie on the diagonal. Below "
        "it the intervals are too narrow, above it too wide. Cross-fitted: the scaling was fitted on the other folds."
    )
    shown = table(["wanted", *(key for key, _ in kinds)], zip(*columns, strict=True))
    return f'{note(said)}<div class="figures"><figure>{figure}</figure><div>{shown}</div></div>'


def _settings(values: Values) -> str:
    """What was fitted: the members' temperatures, then the ensemble's own calibration."""
    said = []
    if values.get("temperatures"):
        said.append(f"Temperatures of the members (above 1: it was too sure): {escape(plain(values['temperatures']))}.")
    if values.get("ensemble"):
        fitted = {key: value for key, value in values["ensemble"].items() if key != "kind"}
        parts = [str(values["ensemble"]["kind"]), *([plain(fitted)] if fitted else [])]
        said.append(f"Calibration of the ensemble: {escape(', '.join(parts))}.")
    return "".join(f'<p class="quiet">{part}</p>' for part in said)
