"""A scale and a bias for every class."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from densemble.ensemble.calibrate.newton import Curvature, minimise
from densemble.ensemble.calibrate.pixel_log_odds import (
    Images,
    Labelled,
    Masked,
    probabilities,
    read_evidence,
    require_probabilities,
    scores,
)
from densemble.ensemble.calibrate.temperature import fit_temperature
from densemble.errors import DataError, UsageError
from densemble.tasks import Distribution

_PENALTY = 1e-5
"""Of half the squared distance from the temperature, against nats per pixel: a class with fewer than one pixel in a
hundred thousand hardly moves, others hardly feel it."""


@dataclass(frozen=True)
class VectorScaling:
    """Log-probability of each class times its scale plus its bias (vector scaling, Guo et al. 2017).

    For Bernoulli channels their log-odds, each on its own (Platt 1999).

    Attributes:
        scales: K.
        biases: K, in nats.
        distribution: of the maps.

    Raises:
        UsageError: unequal numbers, numbers that are not finite, or maps that are no probabilities.
    """

    scales: tuple[float, ...]
    biases: tuple[float, ...]
    distribution: Distribution

    def __post_init__(self) -> None:
        require_probabilities(self.distribution)
        if not self.scales or len(self.scales) != len(self.biases):
            raise UsageError(f"{len(self.scales)} scales and {len(self.biases)} biases; give one of each per class")
        if not all(math.isfinite(number) for number in (*self.scales, *self.biases)):
            raise UsageError(f"scales {self.scales} and biases {self.biases} must be finite")

    def apply(self, maps: Tensor) -> Tensor:
        """Probabilities ``(B, K, h, w)`` -> calibrated ones.

        Raises:
            UsageError: another number of channels.
        """
        if maps.shape[1] != len(self.scales):
            raise UsageError(
                f"a calibration of {len(self.scales)} classes cannot be applied to {maps.shape[1]} channels"
            )
        shape = (-1, *[1] * (maps.ndim - 2))
        scale, bias = (maps.new_tensor(numbers).view(shape) for numbers in (self.scales, self.biases))
        return probabilities(scores(maps, self.distribution) * scale + bias, self.distribution)

    def describe(self) -> dict[str, Any]:
        """Plain values from which :func:`make_calibration` builds the same calibration."""
        numbers = {"scales": list(self.scales), "biases": list(self.biases)}
        return {"kind": "vector", **numbers, "distribution": self.distribution}


def make_vector_scaling(values: dict[str, Any]) -> VectorScaling:
    """From the plain values of ``describe``."""
    scales, biases = (tuple(float(number) for number in values[key]) for key in ("scales", "biases"))
    return VectorScaling(scales, biases, values["distribution"])


def fit_vector_scaling(
    images: Images,
    distribution: Distribution,
    ignored: int = 255,
    report: Callable[[str], None] = lambda line: None,
) -> VectorScaling:
    """The scales and biases that make all known pixels of held-out images likeliest.

    Starts from the best temperature and never ends at a lower likelihood. A class that is true of no known pixel, or a
    channel that is true of all, keeps that temperature and no bias. Arguments as in :func:`fit_temperature`.

    Raises:
        DataError: a label outside the channels that is not the ignored one; or no images.
    """
    neutral = 1 / fit_temperature(images, distribution, ignored, report)
    varied = _varied(images, distribution, ignored)
    if not len(varied):
        raise DataError("there is no held-out image to calibrate on; give validation images")
    start = torch.tensor([neutral, 0.0], dtype=torch.float64).repeat_interleave(len(varied))
    free = varied.repeat(2)

    def measure(chosen: Tensor) -> Curvature:
        place = start.clone()
        place[free] = chosen
        whole = _measure(images, distribution, ignored, place)
        away = chosen - start[free]
        penalty = _PENALTY * torch.eye(len(chosen), dtype=torch.float64)
        return Curvature(
            whole.loss + _PENALTY / 2 * float(away @ away),
            whole.gradient[free] + _PENALTY * away,
            whole.hessian[free][:, free] + penalty,
        )

    best = start.clone()
    if varied.any():
        best[free] = minimise(measure, start[free])
    scales, biases = best.view(2, -1).tolist()
    return VectorScaling(tuple(scales), tuple(biases), distribution)


def _varied(images: Images, distribution: Distribution, ignored: int) -> Tensor:
    """Which classes are true of some known pixels and not of all, bool ``(K,)``."""
    true = known = torch.zeros(0, dtype=torch.float64)
    for maps, target in images():
        evidence = read_evidence(maps, target, distribution, ignored)
        classes = len(evidence.scores)
        if isinstance(evidence, Labelled):
            own = torch.bincount(evidence.labels, minlength=classes).double()
            of = own.new_full((classes,), evidence.size)
        else:
            own, of = (part.double().sum(1) for part in (evidence.truth, evidence.known))
        true, known = (own, of) if not len(true) else (true + own, known + of)
    return (true > 0) & (true < known)


def _measure(images: Images, distribution: Distribution, ignored: int, place: Tensor) -> Curvature:
    """Mean negative log-likelihood and its derivatives by scales and biases, which follow one another."""
    loss, values = 0.0, 0
    gradient, hessian = torch.zeros_like(place), place.new_zeros(len(place), len(place))
    scale, bias = place.float().view(2, -1, 1)
    for maps, target in images():
        evidence = read_evidence(maps, target, distribution, ignored)
        logits = evidence.scores * scale + bias
        own = _categorical(evidence, logits) if isinstance(evidence, Labelled) else _bernoulli(evidence, logits)
        loss, gradient, hessian = loss + own.loss, gradient + own.gradient, hessian + own.hessian
        values += evidence.size
    return Curvature(loss / values, gradient / values, hessian / values)


def _categorical(evidence: Labelled, logits: Tensor) -> Curvature:
    z, labels = evidence
    total = torch.logsumexp(logits, dim=0)
    true = logits.gather(0, labels[None])[0]
    p = (logits - total).exp_()
    moved = p * z
    residual = p.scatter_add(0, labels[None], p.new_full((1, len(labels)), -1.0))
    gradient = torch.cat([(residual * z).sum(1), residual.sum(1)])
    # d2/da db of logsumexp: the diagonal of the expectation less the products of expectations (Boyd 2004, 3.1.5).
    both = torch.cat([moved, p])
    hessian = _bands((moved * z).sum(1), moved.sum(1), p.sum(1)) - (both @ both.T).double()
    return Curvature(float((total - true).sum()), gradient.double(), hessian)


def _bernoulli(evidence: Masked, logits: Tensor) -> Curvature:
    z, truth, known = evidence
    p = torch.sigmoid(logits)
    loss = (known * (F.softplus(logits) - truth * logits)).sum()
    residual, bend = known * (p - truth), known * p * (1 - p)
    gradient = torch.cat([(residual * z).sum(1), residual.sum(1)])
    return Curvature(float(loss), gradient.double(), _bands((bend * z * z).sum(1), (bend * z).sum(1), bend.sum(1)))


def _bands(scales: Tensor, mixed: Tensor, biases: Tensor) -> Tensor:
    """Second derivatives within each class: by its scale, by both, by its bias; float64 ``(2K, 2K)``."""
    mixed = mixed.diag()
    return torch.cat([torch.cat([scales.diag(), mixed], 1), torch.cat([mixed, biases.diag()], 1)]).double()
