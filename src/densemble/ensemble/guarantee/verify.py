"""Whether a guarantee holds, on pictures that it was not fitted on."""

from dataclasses import dataclass

from torch import Tensor

from densemble.ensemble.guarantee.held_out_images import Pictures, observations
from densemble.ensemble.guarantee.intervals import ConformalInterval
from densemble.ensemble.guarantee.sets import ConformalSet, RiskControl
from densemble.errors import DataError
from densemble.tasks import Task

Guarantee = ConformalSet | ConformalInterval | RiskControl


@dataclass(frozen=True)
class Coverage:
    """How much of what is true a guarantee held.

    Attributes:
        per_picture: mean over the pictures of the share that was held in each; this is what is promised.
        per_pixel: share over all pixels together.
        lowest: of the picture that was covered least.
        size: mean over the pictures: classes in a pixel's set, or from end to end of its interval.
        pictures: how many had something to hold.
    """

    per_picture: float
    per_pixel: float
    lowest: float
    size: float
    pictures: int


def coverage(pictures: Pictures, guarantee: Guarantee, task: Task) -> Coverage:
    """What a guarantee holds of other held-out pictures; one pass.

    Raises:
        DataError: no picture has anything to hold.
    """
    shares, sizes = [], []
    held = asked = 0
    for maps, ideal, valid in observations(pictures, task):
        covered, wanted, size = _held(guarantee, maps, ideal, valid)
        count = int(wanted.sum())
        if count:
            hits = int((covered & wanted).sum())
            held, asked = held + hits, asked + count
            shares.append(hits / count)
            sizes.append(size)
    if not shares:
        raise DataError("coverage cannot be checked: no picture has a valid target; give others")
    number = len(shares)
    return Coverage(sum(shares) / number, held / asked, min(shares), sum(sizes) / number, number)


def binomial_interval(expected: float, pictures: int, confidence: float = 0.95) -> tuple[float, float]:
    """Where the mean coverage of so many pictures lies, if it is expected to be ``expected``.

    Coverages between 0 and 1 scatter at most as much as those that are 0 or 1, whose sum is binomial: the interval is
    wide enough for the former. What the held-out pictures of the fit leave open comes on top.
    """
    from scipy.stats import binom

    tail = (1 - confidence) / 2
    low, high = binom.ppf([tail, 1 - tail], pictures, expected)
    return float(low) / pictures, float(high) / pictures


def _held(guarantee: Guarantee, maps: Tensor, ideal: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, float]:
    """What is held, what should be, both bool ``(K, h, w)``, and the mean size."""
    if isinstance(guarantee, ConformalInterval):
        lower, upper = (end[0] for end in guarantee.apply(maps))
        return (lower <= ideal) & (ideal <= upper), valid, float((upper - lower)[valid].mean())
    included = guarantee.apply(maps)[0]
    known = valid.any(0)
    return included, valid & (ideal > 0.5), float((included & valid).sum() / known.sum())
