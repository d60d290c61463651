"""Plots: points are drawn at the positions of their values, as read from the pixels and the SVG."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from densemble.report.curves import draw_curves
from densemble.report.figures import ChartAxis, Series, chart

LINE = r'<line class="level" x1="([\d.]+)" y1="([\d.]+)" x2="([\d.]+)" y2="([\d.]+)"'
GREEN = (44, 160, 44)
"""matplotlib's tab:green, the colour of validation metrics."""


@pytest.mark.parametrize("middle", [0.125, 0.5, 0.875])
def test_curve_is_drawn_at_its_values(middle: float, tmp_path: Path) -> None:
    """The first epoch is drawn at the bottom (0), the last at the top (1), the second in between at its value."""
    rows = [
        {"epoch": float(epoch), "train_loss": 1.0, "val_loss": 1.0, "val_cc": value}
        for epoch, value in enumerate((0.0, middle, 1.0), start=1)
    ]
    draw_curves(rows, "a member", tmp_path / "curves.png")
    pixels = np.asarray(Image.open(tmp_path / "curves.png").convert("RGB")).astype(int)
    drawn = (np.abs(pixels - GREEN).max(2) < 40).nonzero()
    points = list(zip(drawn[1], drawn[0], strict=True))
    left, right = min(points)[0], max(points)[0]

    def height_at(share: float) -> float:
        column = left + share * (right - left)
        return float(np.mean([y for x, y in points if abs(x - column) <= 1]))

    bottom, top = max(y for _, y in points), min(y for _, y in points)
    assert bottom - top > 100, "the curve fills its panel"
    assert (bottom - height_at(0.5)) / (bottom - top) == pytest.approx(middle, abs=0.03)
    assert height_at(0) > height_at(0.5) > height_at(1)


def test_points_of_a_chart_agree_with_its_ticks() -> None:
    """The ticks of the axes give the map from pixels to values; it recovers the values of the dots."""
    points = [(0.0, 10.0), (1.0, 40.0), (3.0, 20.0), (4.0, 30.0)]
    svg = chart([Series("one", points, drawn="dots")], ChartAxis("across", (0, 4)), ChartAxis("up", (0, 50)))
    across, up = marks(svg, "middle"), marks(svg, "end")
    assert len(across) >= 3 and len(up) >= 3
    dots = [(float(x), float(y)) for x, y in re.findall(r'<circle[^>]*cx="([\d.]+)"[^>]*cy="([\d.]+)"', svg)]
    values = [(value_at(across, x), value_at(up, y)) for x, y in dots]
    for dot, point in zip(values, points, strict=True):
        assert dot == pytest.approx(point, abs=0.15)


def marks(svg: str, anchor: str) -> list[tuple[float, float]]:
    """(pixel, value) of the grid lines of an axis and their labels.

    The labels of the horizontal axis have the anchor ``middle`` and vertical lines, those of the vertical axis ``end``.
    """
    end = "x" if anchor == "middle" else "y"
    texts = [
        (float(re.search(rf'\b{end}="([\d.]+)"', tag)[1]), float(text))  # type: ignore[index]
        for tag, text in re.findall(r"<text([^>]*)>([^<]*)</text>", svg)
        if f'text-anchor="{anchor}"' in tag and re.fullmatch(r"-?[\d.]+", text)
    ]
    lines = [tuple(map(float, ends)) for ends in re.findall(LINE, svg)]
    pixels = [x1 if end == "x" else y1 for x1, y1, x2, y2 in lines if (x1 == x2) == (end == "x")]
    return [(min(pixels, key=lambda pixel: abs(pixel - at)), value) for at, value in texts]


def value_at(marks: list[tuple[float, float]], pixel: float) -> float:
    slope, start = np.polyfit(*zip(*marks, strict=True), 1)
    return float(slope * pixel + start)
