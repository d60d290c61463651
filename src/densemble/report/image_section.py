"""The images of a report: one row per image, with the legends of its panels as text in the colours of the page."""

from collections.abc import Sequence

import numpy as np

from densemble.inference.drawing import Bar, Legend, class_colours, colour_values
from densemble.markup import embedded_image, escape
from densemble.report.error_maps import DIFFERENCE, difference_colours
from densemble.report.html_page import Values, colour_legend, fold
from densemble.report.rounding import number, numbers
from densemble.report.strips import ImageStrip, Panel

_LEGEND_CLASSES = 40
_MEMBER_WIDTH = 200
_STOPS = 9
_TINY = 1e-4


def images(strips: Sequence[ImageStrip], analysis: Values) -> str:
    """Rows of panels: the leading ones, then the others behind a fold."""
    classes = analysis.get("per_class", {}).get("classes", [])
    key = colour_legend(zip(classes[:_LEGEND_CLASSES], class_colours(classes), strict=False))
    more = f" and {len(classes) - _LEGEND_CLASSES} more classes" if len(classes) > _LEGEND_CLASSES else ""
    leading, others = ([strip for strip in strips if strip.leading is shown] for shown in (True, False))
    metric = analysis["metric"]
    rest = fold(f"{len(others)} more images", "".join(_row(strip, metric) for strip in others) if others else "")
    legend = f'<p class="legend small">{key}{more}</p>' if key else ""
    return f"{legend}{''.join(_row(strip, metric) for strip in leading)}{rest}"


def _row(strip: ImageStrip, metric: str) -> str:
    score = "" if strip.score is None else f", {escape(metric)} {number(strip.score)}"
    caption = strip.caption[:1].upper() + strip.caption[1:]
    panels = "".join(_figure(panel, strip.name) for panel in strip.panels)
    members = "".join(_figure(panel, strip.name, _MEMBER_WIDTH) for panel in strip.members)
    members = f'<div class="panels small">{members}</div>' if members else ""
    plural = f"Predictions of {len(strip.members)} member{'s' if len(strip.members) > 1 else ''}"
    return (
        f'<article class="example"><h3><span class="tag">{escape(caption)}</span> {escape(strip.name)}'
        f'<span class="quiet">{score}</span></h3><div class="panels">{panels}</div>'
        f"{fold(plural, members)}</article>"
    )


def _figure(panel: Panel, name: str, width: int = 640) -> str:
    title = panel.title[:1].upper() + panel.title[1:] if width > _MEMBER_WIDTH else panel.title
    image = embedded_image(panel.pixels, f"{panel.title} of {name}", width)
    return f"<figure>{image}<figcaption><b>{escape(title)}</b>{legend_html(panel.legend)}</figcaption></figure>"


def legend_html(legend: Legend) -> str:
    """Legend of a drawing as HTML: bar of values, names beside squares, and note."""
    bar = "" if legend.bar is None else _ramp(legend.bar)
    entries = f" {colour_legend(legend.entries)}" if legend.entries else ""
    note = f" {escape(legend.note)}" if legend.note else ""
    return f"{bar}{entries}{note}"


def _ramp(bar: Bar) -> str:
    shares = np.linspace(0, 1, _STOPS, dtype=np.float32)
    if bar.colours == DIFFERENCE:
        colours = difference_colours(2 * shares - 1, 1)
    else:
        colours = colour_values(shares[None], 0, 1, bar.colours)[0]
    stops = ",".join("#" + bytes(colour.tolist()).hex() for colour in colours)
    signed = bar.low < 0 < bar.high
    ends = [bar.low, (bar.low + bar.high) / 2, bar.high]
    low, middle, high = numbers(ends, signed=signed)
    if 0 < max(map(abs, ends)) < _TINY:
        low, middle, high = (f"{value:.2g}" for value in ends)
    label = bar.label.removeprefix("uncertainty: ").removeprefix("error, ").removeprefix("error")
    return (
        f'{" " if label else ""}{escape(label.strip())}<span class="ramp" '
        f'style="background:linear-gradient(90deg,{stops})"></span>'
        f'<span class="ends"><span>{low}</span><span>{middle}</span><span>{high}</span></span>'
    )
