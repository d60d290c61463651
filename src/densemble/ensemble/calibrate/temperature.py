"""One temperature for all classes."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from densemble.ensemble.calibrate.newton import Curvature, minimise
from densemble.ensemble.calibrate.pixel_log_odds import (
    Evidence,
    Images,
    Labelled,
    probabilities,
    read_evidence,
    require_probabilities,
    scores,
)
from densemble.errors import UsageError
from densemble.tasks import Distribution

LOWEST, HIGHEST = 0.2, 5.0
"""A temperature beyond these says that something else is wrong with a model."""


def temper(maps: Tensor, temperature: float, distribution: Distribution) -> Tensor:
    """Probabilities as if their logits had been divided by a temperature (Guo et al. 2017).

    Args:
        maps: ``(B, K, ...)``: categorical over K, or K Bernoulli probabilities; anything else is returned as it is.
        temperature: above 1 less sure, below 1 surer.
    """
    if temperature == 1 or distribution == "none":
        return maps
    return probabilities(scores(maps, distribution) / temperature, distribution)


@dataclass(frozen=True)
class Temperature:
    """Logits are divided by one number (Guo et al. 2017): the order of the classes stays.

    Attributes:
        value: above 1 less sure, below 1 surer.
        distribution: of the maps.

    Raises:
        UsageError: the value is not positive and finite, or the maps are no probabilities.
    """

    value: float
    distribution: Distribution

    def __post_init__(self) -> None:
        require_probabilities(self.distribution)
        if not (math.isfinite(self.value) and self.value > 0):
            raise UsageError(f"temperature {self.value} must be positive and finite; 1 changes nothing")

    def apply(self, maps: Tensor) -> Tensor:
        """Probabilities ``(B, K, h, w)`` -> calibrated ones."""
        return temper(maps, self.value, self.distribution)

    def describe(self) -> dict[str, Any]:
        """Plain values from which :func:`make_calibration` builds the same calibration."""
        return {"kind": "temperature", "value": self.value, "distribution": self.distribution}


def make_temperature(values: dict[str, Any]) -> Temperature:
    """From the plain values of ``describe``."""
    return Temperature(float(values["value"]), values["distribution"])


def fit_temperature(
    images: Images,
    distribution: Distribution,
    ignored: int = 255,
    report: Callable[[str], None] = lambda line: None,
) -> float:
    """The temperature between 0.2 and 5 that makes all known pixels of held-out images likeliest (Guo et al. 2017).

    The negative log-likelihood is convex in 1 / temperature, so that Newton's method finds it in about five passes.

    Args:
        images: gives maps and targets; see ``Images``. Memory holds one image.
        distribution: of the maps: labels are true of categorical ones; masks or heat in [0, 1] of Bernoulli ones.
        ignored: target where nothing is known.
        report: called with one line of text where the best temperature lies at a bound or beyond.

    Returns:
        The temperature; 1 where nothing is known.

    Raises:
        DataError: a label outside the channels that is not the ignored one.
    """

    def measure(inverse: Tensor) -> Curvature:
        loss, slope, bend, values = 0.0, 0.0, 0.0, 0
        for maps, target in images():
            evidence = read_evidence(maps, target, distribution, ignored)
            own = _derivatives(evidence, float(inverse))
            loss, slope, bend = loss + own[0], slope + own[1], bend + own[2]
            values += evidence.size
        if bend <= 0:  # nothing is known, or no value says anything
            return Curvature(0.0, torch.zeros(1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64))
        derivatives = torch.tensor([slope, bend], dtype=torch.float64) / values
        return Curvature(loss / values, derivatives[:1], derivatives[1:, None])

    best = float(minimise(measure, torch.ones(1, dtype=torch.float64), 1 / HIGHEST, 1 / LOWEST))
    if not 1 / HIGHEST < best < 1 / LOWEST:
        report(f"the best temperature is {1 / best:g} or beyond: probabilities that far off deserve a look")
    return 1 / best


def _derivatives(evidence: Evidence, inverse: float) -> tuple[float, float, float]:
    """Sum of the negative log-likelihood and its two derivatives by the inverse temperature."""
    z = evidence.scores
    if isinstance(evidence, Labelled):
        logits = z * inverse
        total = torch.logsumexp(logits, dim=0)
        true = z.gather(0, evidence.labels[None])[0]
        p = (logits - total).exp_()
        expected = (p * z).sum(0)
        loss, slope, bend = total - inverse * true, expected - true, (p * z * z).sum(0) - expected.square()
    else:
        p = torch.sigmoid(z * inverse)
        loss = evidence.known * (F.softplus(z * inverse) - evidence.truth * z * inverse)
        slope, bend = evidence.known * z * (p - evidence.truth), evidence.known * z * z * p * (1 - p)
    return float(loss.sum()), float(slope.sum()), float(bend.sum())
