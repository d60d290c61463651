"""Charts as inline SVG, in the colours and the font of the page. Points beyond the range of an axis are arrows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from densemble.markup import Markup, escape
from densemble.report.ranges import Point, main_values, padded
from densemble.report.rounding import number

Style = Literal["first", "second", "third"]
"""Colour class in the style sheet of the page."""
Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 22, 10, 40
_LETTER_WIDTH = 7.6
"""Approximate width of a letter in pixels, in the larger letters of a phone."""
_DOT_RADIUS = 3.5
_ARROW = 5
_LABEL_POSITIONS = (
    (7, 4, "start", 0.0),
    (-7, 4, "end", 1.0),
    (0, -8, "middle", 0.5),
    (0, 17, "middle", 0.5),
    (4, -7, "start", 0.0),
    (-4, -7, "end", 1.0),
    (4, 15, "start", 0.0),
)
"""Positions of a label relative to its dot, in order of preference: x shift, y shift, SVG text anchor, and the share of
the label to the left of the anchor."""
_THOUSANDS = ("", "k", "M", "G", "T")
_BAR_WIDTH, _BAR_HEIGHT = 220, 18
_DECADE_STEPS = (1, 2, 5)


@dataclass(frozen=True)
class Series:
    """Points drawn in one style.

    Attributes:
        name: name in the legend.
        points: (x, y).
        style: colour class.
        drawn: dots without a line, a line with dots, a line without dots, or a staircase with dots.
        labels: texts beside the points: none, or one per point.
    """

    name: str
    points: Sequence[Point]
    style: Style = "first"
    drawn: Literal["dots", "marked", "line", "steps"] = "marked"
    labels: Sequence[str] = ()


@dataclass(frozen=True)
class Scale:
    """Linear or logarithmic map from values (``low`` to ``high``) to pixels (``start`` to ``end``)."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        return self.start + self._share(value) * (self.end - self.start)

    def _share(self, value: float) -> float:
        if self.log:
            return math.log(max(value, 1e-12) / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def inside(self, value: float) -> bool:
        """Whether a value lies on the axis."""
        return -1e-9 <= self._share(value) <= 1 + 1e-9

    def nearest(self, value: float) -> float:
        """The pixel of a value, or of the end of the axis that is nearest to it."""
        return self(min(max(value, self.low), self.high))


def ticks(low: float, high: float, most: int = 5, least_step: float = 0.0) -> list[tuple[float, str]]:
    """About ``most`` round values within a range, at least ``least_step`` apart, each with its label."""
    rough = max((high - low) / most, least_step)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * (1 - 1e-9))
    decimals = max(0, -math.floor(math.log10(step) + 1e-9)) + (1 if step / power == 2.5 else 0)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [(k * step, f"{k * step:.{decimals}f}") for k in range(first, last + 1)]


def decade_ticks(low: float, high: float, most: int = 8) -> list[tuple[float, str]]:
    """Values 1, 2 and 5 times a power of ten within a range of positive numbers, each with its label.

    Only the powers of ten if there would be more than ``most`` values.
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [step * 10.0**power for power in powers for step in _DECADE_STEPS]
    inside = [value for value in values if low <= value <= high]
    if len(inside) > most:
        inside = [10.0**power for power in powers if low <= 10.0**power <= high]
    return [(value, f"{value:,.0f}" if value >= 1 else f"{value:.4g}") for value in inside]


@dataclass(frozen=True)
class ChartAxis:
    """An axis of a chart.

    Attributes:
        label: text beside the axis.
        within: lowest and highest value; ``None``: the range of most of the points, extended.
        least_step: smallest distance between two ticks: 1 for an axis of counts.
        wide: values above 0 that often differ by factors: the axis is logarithmic if the largest is more than 8 times
            the smallest.
    """

    label: str
    within: Point | None = None
    least_step: float = 0.0
    wide: bool = False

    def scale(self, values: Sequence[float], start: float, end: float) -> Scale:
        """Scale that maps the values to pixels from ``start`` to ``end``."""
        if self.wide and values and min(values) > 0 and max(values) > 8 * min(values):
            return Scale(min(values) / 1.3, max(values) * 1.3, start, end, log=True)
        return Scale(*(self.within or padded(main_values(values))), start, end)

    def ticks(self, scale: Scale, most: int) -> list[tuple[float, str]]:
        """Round values on the axis, about ``most`` of them, each with its label."""
        if scale.log:
            return decade_ticks(scale.low, scale.high)
        return ticks(scale.low, scale.high, most, self.least_step)


def chart(
    series: Sequence[Series], x: ChartAxis, y: ChartAxis, size: tuple[int, int] = (400, 280), diagonal: bool = False
) -> str:
    """Chart of lines and dots, with a legend above it if there are several series.

    Args:
        series: drawn in this order.
        x: horizontal axis.
        y: vertical axis.
        size: width and height in pixels.
        diagonal: draw a dotted line at x = y.
    """
    points = [point for group in series for point in group.points]
    width, height = size
    across = x.scale([point[0] for point in points], _LEFT, width - _RIGHT)
    up = y.scale([point[1] for point in points], height - _BOTTOM, _TOP)
    body = [_frame(across, up, x, y)]
    if diagonal:
        low, high = max(across.low, up.low), min(across.high, up.high)
        body.append(_path([(low, low), (high, high)], across, up, "diagonal"))
    body += [_drawn(group, across, up) for group in series]
    body += _labels(series, across, up)
    return legend(series) + _svg(width, height, "".join(body), f"{y.label} against {x.label}")


def legend(series: Sequence[Series]) -> str:
    """Legend of the series; empty if fewer than two have a name."""
    entries = [
        f'<span><i class="stroke {group.style}"></i>{escape(group.name)}</span> ' for group in series if group.name
    ]
    return f'<p class="legend small">{"".join(entries)}</p>' if len(entries) > 1 else ""


def count_bars(bins: Sequence[dict[str, Any]], label: str, size: tuple[int, int]) -> str:
    """Histogram with a logarithmic vertical scale.

    Args:
        bins: each with its limits ``low`` and ``high`` in [0, 1], and its ``count``.
        label: text beside the bars.
        size: width and height in pixels.
    """
    width, height = size
    most = max(1, math.ceil(math.log10(max([row["count"] for row in bins], default=1) + 1)))
    across = Scale(0, 1, _LEFT, width - _RIGHT)
    up = Scale(0, most, height - 8, _TOP)
    marks = [(float(power), f"{10 ** (power % 3)}{_THOUSANDS[power // 3]}") for power in range(0, most + 1, 2)]
    body = [_grid_lines(across, up, marks)]
    for row in bins:
        left, top = across(row["low"]), up(math.log10(row["count"] + 1))
        wide = max(across(row["high"]) - left - 1, 1)
        body.append(
            f'<rect class="first" x="{left + 0.5:.1f}" y="{top:.1f}" width="{wide:.1f}" height="{up.start - top:.1f}">'
            f"<title>{row['count']:,}</title></rect>"
        )
    body.append(_vertical_label(label, (up.start + up.end) / 2))
    return _svg(width, height, "".join(body), label)


def interval_bar(value: float | None, low: float | None, high: float | None, within: Point) -> Markup:
    """Dot at a value on the line of its interval, for a table cell; an arrow at the edge if it lies beyond it."""
    scale = Scale(*within, 6, _BAR_WIDTH - 6)
    middle = _BAR_HEIGHT / 2
    body = "".join(_line(scale(at), 0, scale(at), _BAR_HEIGHT, "level") for at, _ in ticks(*within, 4))
    if scale.inside(0.0):
        body += _line(scale(0), 0, scale(0), _BAR_HEIGHT, "zero")
    if low is not None and high is not None and high >= within[0] and low <= within[1]:
        body += _line(scale.nearest(low), middle, scale.nearest(high), middle, "first")
        body += "".join(
            _line(scale(at), middle - 4, scale(at), middle + 4, "first") for at in (low, high) if scale.inside(at)
        )
    if value is not None and scale.inside(value):
        body += f'<circle class="first" cx="{scale(value):.1f}" cy="{middle}" r="4"/>'
    elif value is not None:
        body += _arrow(scale.nearest(value), middle, (math.copysign(1, value - within[0]), 0), "first")
    interval = f", 95 % interval {number(low)} to {number(high)}" if low is not None and high is not None else ""
    return Markup(_svg(_BAR_WIDTH, _BAR_HEIGHT, body, f"{number(value)}{interval}" if value is not None else "none"))


def interval_axis(within: Point) -> Markup:
    """ChartAxis below a column of interval bars."""
    scale = Scale(*within, 6, _BAR_WIDTH - 6)
    marks = ticks(*within, 4)
    texts = "".join(_text(min(max(scale(at), 18), _BAR_WIDTH - 18), 12, name, "middle") for at, name in marks)
    title = f"scale from {marks[0][1]} to {marks[-1][1]}" if marks else "scale"
    return Markup(_svg(_BAR_WIDTH, _BAR_HEIGHT, texts, title))


def _svg(width: int, height: int, body: str, title: str) -> str:
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return f'<svg {size} role="img" aria-label="{escape(title)}">{body}</svg>'


def _frame(across: Scale, up: Scale, x: ChartAxis, y: ChartAxis) -> str:
    wide, high = (abs(scale.end - scale.start) for scale in (across, up))
    parts = [_grid_lines(across, up, y.ticks(up, max(3, int(high / 34))))]
    for at, name in x.ticks(across, max(2, int(wide / 40))):
        parts.append(_line(across(at), up.end, across(at), up.start, "level"))
        parts.append(_text(across(at), up.start + 15, name, "middle"))
    parts.append(_text((across.start + across.end) / 2, up.start + 32, x.label, "middle"))
    parts.append(_vertical_label(y.label, (up.start + up.end) / 2))
    return "".join(parts)


def _grid_lines(across: Scale, up: Scale, marks: Sequence[tuple[float, str]]) -> str:
    """Horizontal lines with their labels."""
    lines = "".join(_line(across.start, up(at), across.end, up(at), "level") for at, _ in marks)
    return lines + "".join(_text(across.start - 5, up(at) + 4, name, "end") for at, name in marks)


def _vertical_label(label: str, middle: float) -> str:
    return (
        f'<text x="12" y="{middle:.1f}" text-anchor="middle" transform="rotate(-90 12 {middle:.1f})">'
        f"{escape(label)}</text>"
    )


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _path(points: Sequence[Point], across: Scale, up: Scale, style: str) -> str:
    """Line through points; parts beyond the axes are cut off."""
    frame = (min(across.start, across.end), min(up.start, up.end), max(across.start, across.end), max(up.start, up.end))
    steps, last = [], None
    for a, b in pairwise([(across(x), up(y)) for x, y in points]):
        visible = _clipped(a, b, frame)
        if visible is None:
            continue
        start, end = (f"{point[0]:.1f} {point[1]:.1f}" for point in visible)
        steps.append(f"L{end}" if start == last else f"M{start}L{end}")
        last = end
    return f'<path class="line {style}" d="{"".join(steps)}"/>' if steps else ""


def _clipped(a: Point, b: Point, frame: Box) -> tuple[Point, Point] | None:
    """Part of a line inside a box (Liang & Barsky 1984); ``None`` if there is none."""
    first, last = 0.0, 1.0
    for axis in (0, 1):
        change = b[axis] - a[axis]
        for sign, edge in ((-1, frame[axis]), (1, frame[axis + 2])):
            distance = sign * (edge - a[axis])
            if change == 0 and distance < -1e-6:
                return None
            if sign * change < 0:
                first = max(first, distance / (sign * change))
            elif sign * change > 0:
                last = min(last, distance / (sign * change))
    if first > last:
        return None
    start, end = ((a[0] + at * (b[0] - a[0]), a[1] + at * (b[1] - a[1])) for at in (first, last))
    return start, end


def _drawn(series: Series, across: Scale, up: Scale) -> str:
    corners = _stairs(series.points) if series.drawn == "steps" else series.points
    line = "" if series.drawn == "dots" else _path(corners, across, up, series.style)
    if series.drawn == "line":
        return line
    names = series.labels or [""] * len(series.points)
    return line + "".join(
        _mark(point, name, across, up, series.style) for point, name in zip(series.points, names, strict=True)
    )


def _mark(point: Point, name: str, across: Scale, up: Scale, style: str) -> str:
    """Dot at a point, or an arrow at the edge towards a point beyond it."""
    x, y = across.nearest(point[0]), up.nearest(point[1])
    if across.inside(point[0]) and up.inside(point[1]):
        title = f"<title>{escape(name)}</title>" if name else ""
        return f'<circle class="{style}" cx="{x:.2f}" cy="{y:.2f}" r="{_DOT_RADIUS}">{title}</circle>'
    towards = (
        0 if across.inside(point[0]) else math.copysign(1, across(point[0]) - x),
        0 if up.inside(point[1]) else math.copysign(1, up(point[1]) - y),
    )
    return _arrow(x, y, towards, style, f"{name} {number(point[0])}, {number(point[1])}".strip())


def _arrow(x: float, y: float, towards: Point, style: str, title: str = "") -> str:
    """Triangle whose tip is at (x, y); ``towards`` is the direction, -1 to 1 along each axis."""
    across, down = towards
    back = (x - across * 1.6 * _ARROW, y - down * 1.6 * _ARROW)
    corners = [(x, y), (back[0] - down * _ARROW, back[1] + across * _ARROW),
               (back[0] + down * _ARROW, back[1] - across * _ARROW)]  # fmt: skip
    points = " ".join(f"{left:.1f},{top:.1f}" for left, top in corners)
    return f'<polygon class="{style}" points="{points}">{f"<title>{escape(title)}</title>" if title else ""}</polygon>'


def _stairs(points: Sequence[Point]) -> list[Point]:
    """Corners of a staircase that stays horizontal until the next point."""
    corners = [(b[0], a[1]) for a, b in pairwise(points)]
    return [point for pair in zip(points, corners, strict=False) for point in pair] + list(points[-1:])


def _labels(series: Sequence[Series], across: Scale, up: Scale) -> list[str]:
    """Labels beside their dots, without overlaps; a label without free space is left out."""
    taken = [_box(point, point, across, up, 4) for group in series for point in group.points]
    for group in series:
        if group.drawn == "steps":
            taken += [_box(a, b, across, up, 1) for a, b in pairwise(_stairs(group.points))]
    texts = []
    for group in series:
        for (x, y), label in zip(group.points, group.labels, strict=False):
            beyond = [number(value) for value, scale in ((x, across), (y, up)) if not scale.inside(value)]
            name = f"{label} ({', '.join(beyond)})" if beyond else label
            wide = len(name) * _LETTER_WIDTH
            for x_shift, y_shift, anchor, share_left in _LABEL_POSITIONS:
                at, bottom = across.nearest(x) + x_shift, up.nearest(y) + y_shift
                left = at - share_left * wide
                box = (left, bottom - 10, left + wide, bottom + 2)
                inside = box[0] >= across.start and box[2] <= across.end + _RIGHT and box[1] >= 0 and box[3] <= up.start
                if inside and not any(_overlap(box, other) for other in taken):
                    taken.append(box)
                    texts.append(_text(at, bottom, name, anchor))
                    break
    return texts


def _box(a: Point, b: Point, across: Scale, up: Scale, margin: float) -> Box:
    """Bounding box, in pixels, of the line between two points, with a margin."""
    xs, ys = sorted((across.nearest(a[0]), across.nearest(b[0]))), sorted((up.nearest(a[1]), up.nearest(b[1])))
    return xs[0] - margin, ys[0] - margin, xs[1] + margin, ys[1] + margin


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
