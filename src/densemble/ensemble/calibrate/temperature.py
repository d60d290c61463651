"""Temperature scaling: one temperature for all classes."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from densemble.ensemble.calibrate.newton import Curvature, minimize_convex
from densemble.ensemble.calibrate.pixel_log_odds import (
    Images,
    KnownPixels,
    LabelledPixels,
    read_known_pixels,
    require_probabilities,
)
from densemble.ensemble.combine.log_odds import from_logits, to_logits
from densemble.ensemble.described import Described
from densemble.errors import UsageError
from densemble.tasks import Distribution

LOWEST, HIGHEST = 0.2, 5.0
"""Bounds of a fitted temperature; a better value outside of them indicates another problem of the model."""


def temper(maps: Tensor, temperature: float, distribution: Distribution) -> Tensor:
    """Divide the logits of probabilities by a temperature (Guo et al. 2017).

    Args:
        maps: ``(B, K, ...)``: categorical over K, or K Bernoulli probabilities.
        temperature: above 1 makes maps less certain, below 1 more certain.
        distribution: distribution of the maps; maps that are not probabilities are returned unchanged.
    """
    if temperature == 1 or distribution == "none":
        return maps
    return from_logits(to_logits(maps, distribution) / temperature, distribution)


@dataclass(frozen=True)
class Temperature(Described):
    """Division of the logits by one number (Guo et al. 2017); the order of the classes stays.

    Attributes:
        value: above 1 makes maps less certain, below 1 more certain.
        distribution: distribution of the maps.

    Raises:
        UsageError: the value is not positive and finite, or the maps are not probabilities.
    """

    value: float
    distribution: Distribution

    kind = "temperature"

    def __post_init__(self) -> None:
        require_probabilities(self.distribution)
        if not (math.isfinite(self.value) and self.value > 0):
            raise UsageError(f"temperature {self.value} must be positive and finite; 1 changes nothing")

    def apply(self, maps: Tensor) -> Tensor:
        """Calibrate probabilities ``(B, K, h, w)``."""
        return temper(maps, self.value, self.distribution)


def fit_temperature(
    images: Images,
    distribution: Distribution,
    ignored: int = 255,
    report: Callable[[str], None] = lambda line: None,
) -> float:
    """Fit the temperature between 0.2 and 5 with the highest likelihood of all known held-out pixels (Guo et al. 2017).

    The negative log-likelihood is convex in 1 / temperature; Newton's method converges in about five passes.

    Args:
        images: yields maps and targets; see ``Images``. Memory holds one image.
        distribution: distribution of the maps. Targets are labels for categorical maps, and masks or heat in [0, 1] for
            Bernoulli maps.
        ignored: target value of unknown pixels.
        report: called with one line of text if the best temperature is at a bound or outside of the bounds.

    Returns:
        The temperature; 1 if no pixel is known.

    Raises:
        DataError: a label is neither a class nor the ignored label.
    """

    def measure(inverse: Tensor) -> Curvature:
        loss, slope, bend, values = 0.0, 0.0, 0.0, 0
        for maps, target in images():
            pixels = read_known_pixels(maps, target, distribution, ignored)
            derivatives = _derivatives(pixels, float(inverse))
            loss, slope, bend = loss + derivatives[0], slope + derivatives[1], bend + derivatives[2]
            values += pixels.size
        if bend <= 0:  # no pixel is known, or all logits of a pixel are equal
            return Curvature(0.0, torch.zeros(1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64))
        means = torch.tensor([slope, bend], dtype=torch.float64) / values
        return Curvature(loss / values, means[:1], means[1:, None])

    best = float(minimize_convex(measure, torch.ones(1, dtype=torch.float64), 1 / HIGHEST, 1 / LOWEST))
    if not 1 / HIGHEST < best < 1 / LOWEST:
        report(f"the best temperature is {1 / best:g} or beyond; check the model and its held-out images")
    return 1 / best


def _derivatives(pixels: KnownPixels, inverse: float) -> tuple[float, float, float]:
    """Return the summed negative log-likelihood and its two derivatives with respect to the inverse temperature."""
    z = pixels.logits
    if isinstance(pixels, LabelledPixels):
        logits = z * inverse
        total = torch.logsumexp(logits, dim=0)
        true = z.gather(0, pixels.labels[None])[0]
        p = (logits - total).exp_()
        expected = (p * z).sum(0)
        loss, slope, bend = total - inverse * true, expected - true, (p * z * z).sum(0) - expected.square()
    else:
        p = torch.sigmoid(z * inverse)
        loss = pixels.known * (F.softplus(z * inverse) - pixels.target * z * inverse)
        slope, bend = pixels.known * z * (p - pixels.target), pixels.known * z * z * p * (1 - p)
    return float(loss.sum()), float(slope.sum()), float(bend.sum())
