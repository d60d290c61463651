"""The expected interval of a coverage against scipy's binomial distribution."""

import pytest
from scipy.stats import binom

from densemble.ensemble.guarantee import binomial_interval


@pytest.mark.parametrize(("expected", "images"), [(0.9, 50), (0.5, 20), (0.99, 400)])
def test_the_default_interval_holds_95_percent(expected: float, images: int) -> None:
    low, high = binomial_interval(expected, images)
    assert [low * images, high * images] == pytest.approx(binom.interval(0.95, images, expected))
    inside = binom.cdf(high * images, images, expected) - binom.cdf(low * images - 1, images, expected)
    assert inside >= 0.95
    narrow = binomial_interval(expected, images, confidence=0.5)
    assert low < narrow[0] <= expected <= narrow[1] < high or narrow[1] == high == 1
