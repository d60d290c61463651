"""One outlier does not squash a plot: ranges of axes, arrows at their edges, and lines that end there."""

import re

import numpy as np
import pytest

from densemble.report.figures import ChartAxis, Series, chart, interval_bar
from densemble.report.interval_table import interval_table
from densemble.report.ranges import main_range, main_values


def test_one_of_four_values_is_left_out_if_the_others_would_be_squashed() -> None:
    assert main_values([0.80, 0.81, 0.82, -5.0]) == (0.80, 0.82)
    assert main_values([0.80, 0.81, 0.82, 0.83, 0.79, 0.8, 90.0, -40.0]) == (0.79, 0.83)
    assert main_range([(0.79, 0.83), (0.78, 0.82), (0.80, 0.84), (0.49, 0.52)]) == (0.78, 0.84)


@pytest.mark.parametrize(
    "values",
    [
        [0.5, 0.8, 0.81],  # too few to call one an outlier
        [0.55, 0.58, 0.62, 0.77, 0.80, 0.81],  # spread out
        [0.1, 0.11, 0.8, 0.81],  # two groups
        [0.5, 0.5, 0.5, 0.9],  # the others have no range
    ],
)
def test_other_values_are_all_in_the_range(values: list[float]) -> None:
    assert main_values(values) == (min(values), max(values))


def test_no_values() -> None:
    assert main_range([]) == (0.0, 1.0)


def circles(svg: str) -> np.ndarray:  # type: ignore[type-arg]
    return np.array(re.findall(r'<circle[^>]*cx="([\d.]+)" cy="([\d.]+)"', svg), float)


def test_outlier_of_a_chart_is_an_arrow_with_its_values() -> None:
    points = [(10, 0.80), (20, 0.81), (30, 0.82), (40, 0.82), (50, -7.25)]
    svg = chart([Series("", points, labels=["a", "b", "c", "d", "bad"])], ChartAxis("ms"), ChartAxis("cc"))
    dots = circles(svg)
    assert len(dots) == 4 and np.ptp(dots[:, 1]) > 150  # of 230 pixels: the dots use most of the height
    assert svg.count("<polygon") == 1 and ">bad (-7.25)<" in svg
    drawn = [float(number) for path in re.findall(r' d="([^"]*)"', svg) for number in re.findall(r"[\d.]+", path)]
    assert max(drawn[1::2]) <= 240  # the line to the outlier ends at the frame


def test_wide_axis_is_logarithmic() -> None:
    svg = chart([Series("", [(10, 1.0), (100, 2.0), (1000, 3.0)])], ChartAxis("ms", wide=True), ChartAxis("cc"))
    steps = np.diff(circles(svg)[:, 0])
    assert steps[0] == pytest.approx(steps[1], abs=0.02)
    assert all(f">{tick}<" in svg for tick in ("10", "20", "50", "100", "200", "500", "1,000"))


def test_value_beyond_an_interval_plot_is_an_arrow() -> None:
    inside, beyond = interval_bar(0.5, 0.4, 0.6, (0.3, 0.7)), interval_bar(0.1, 0.05, 0.15, (0.3, 0.7))
    assert inside.count("<circle") == 1 and "<polygon" not in inside
    assert beyond.count("<polygon") == 1 and "<circle" not in beyond
    assert 'aria-label="0.100, 95 % interval 0.0500 to 0.150"' in beyond


def test_scale_of_gains_contains_zero() -> None:
    rows = [{"name": "a", "value": 0.3, "low": 0.29, "high": 0.31}]
    assert 'class="zero"' in interval_table(("gain", "interval"), rows, signed=True)
    assert 'class="zero"' not in interval_table(("score", "interval"), rows)
