"""Whether a guarantee holds, on images that it was not fitted on."""

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
    """How much of what is true a guarantee held.

    Attributes:
        per_image: mean over the images of the share that was held in each; this is what is promised.
        per_pixel: share over all pixels together.
        lowest: of the image that was covered least.
        size: mean over the images: classes in a pixel's set, or from end to end of its interval.
        images: how many had something to hold.
    """

    per_image: float
    per_pixel: float
    lowest: float
    size: float
    images: int


def coverage(images: Images, guarantee: Guarantee, task: Task) -> Coverage:
    """What a guarantee holds of other held-out images; one pass.

    Raises:
        DataError: no image has anything to hold.
    """
    shares, sizes = [], []
    held = asked = 0
    for maps, ideal, valid in observations(images, task):
        covered, wanted, size = _held(guarantee, maps, ideal, valid)
        count = int(wanted.sum())
        if count:
            hits = int((covered & wanted).sum())
            held, asked = held + hits, asked + count
            shares.append(hits / count)
            sizes.append(size)
    if not shares:
        raise DataError("coverage cannot be checked: no image has a valid target; give others")
    number = len(shares)
    return Coverage(sum(shares) / number, held / asked, min(shares), sum(sizes) / number, number)


def binomial_interval(expected: float, images: int, confidence: float = 0.95) -> tuple[float, float]:
    """Where the mean coverage of so many images lies, if it is expected to be ``expected``.

    Coverages between 0 and 1 scatter at most as much as those that are 0 or 1, whose sum is binomial: the interval is
    wide enough for the former. What the held-out images of the fit leave open comes on top.
    """
    from scipy.stats import binom

    tail = (1 - confidence) / 2
    low, high = binom.ppf([tail, 1 - tail], images, expected)
    return float(low) / images, float(high) / images


def _held(guarantee: Guarantee, maps: Tensor, ideal: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, float]:
    """What is held, what should be, both bool ``(K, h, w)``, and the mean size."""
    if isinstance(guarantee, ConformalInterval):
        lower, upper = (end[0] for end in guarantee.apply(maps))
        return (lower <= ideal) & (ideal <= upper), valid, float((upper - lower)[valid].mean())
    included = guarantee.apply(maps)[0]
    known = valid.any(0)
    return included, valid & (ideal > 0.5), float((included & valid).sum() / known.sum())
