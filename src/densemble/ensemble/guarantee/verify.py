"""Check of a guarantee on images that were not used to fit it."""

from dataclasses import dataclass

from torch import Tensor

from densemble.ensemble.guarantee.held_out_images import Images, observations
from densemble.ensemble.guarantee.intervals import ConformalInterval
from densemble.ensemble.guarantee.sets import ConformalSet, RiskControl
from densemble.errors import DataError
from densemble.tasks import Task

Guarantee = ConformalSet | ConformalInterval | RiskControl


@dataclass(frozen=True)
class Coverage:
    """Measured coverage of a guarantee.

    Attributes:
        per_image: mean over the images of the covered share of each; the guarantee concerns this number.
        per_pixel: covered share of all pixels together.
        lowest: covered share of the image with the lowest coverage.
        size: mean over the images of the mean number of classes in a set, or of the width of an interval.
        images: number of images with a target to cover.
    """

    per_image: float
    per_pixel: float
    lowest: float
    size: float
    images: int


def coverage(images: Images, guarantee: Guarantee, task: Task) -> Coverage:
    """Measure the coverage of a guarantee on other held-out images, in one pass.

    Raises:
        DataError: no image has a target to cover.
    """
    shares, sizes = [], []
    covered_pixels = pixels = 0
    for maps, ideal, valid in observations(images, task):
        covered, expected, size = _compare(guarantee, maps, ideal, valid)
        count = int(expected.sum())
        if count:
            hits = int((covered & expected).sum())
            covered_pixels, pixels = covered_pixels + hits, pixels + count
            shares.append(hits / count)
            sizes.append(size)
    if not shares:
        raise DataError("coverage cannot be checked: no image has a valid target; give other images")
    number = len(shares)
    return Coverage(sum(shares) / number, covered_pixels / pixels, min(shares), sum(sizes) / number, number)


def binomial_interval(expected: float, images: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the interval in which the mean coverage of ``images`` images lies, if its expectation is ``expected``.

    Coverages between 0 and 1 vary at most as much as values of 0 or 1, whose sum is binomial, so the interval is wide
    enough. It does not include the uncertainty from the held-out images of the fit.
    """
    from scipy.stats import binom

    tail = (1 - confidence) / 2
    low, high = binom.ppf([tail, 1 - tail], images, expected)
    return float(low) / images, float(high) / images


def _compare(guarantee: Guarantee, maps: Tensor, ideal: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, float]:
    """Return what is covered and what should be, both bool ``(K, h, w)``, and the mean size of sets or intervals."""
    if isinstance(guarantee, ConformalInterval):
        lower, upper = (end[0] for end in guarantee.apply(maps))
        return (lower <= ideal) & (ideal <= upper), valid, float((upper - lower)[valid].mean())
    included = guarantee.apply(maps)[0]
    known = valid.any(0)
    return included, valid & (ideal > 0.5), float((included & valid).sum() / known.sum())
