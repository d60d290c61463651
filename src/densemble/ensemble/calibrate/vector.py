"""Vector scaling: a scale and a bias for every class."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from densemble.ensemble.calibrate.newton import Curvature, minimize_convex
from densemble.ensemble.calibrate.pixel_log_odds import (
    BernoulliPixels,
    Images,
    LabelledPixels,
    read_known_pixels,
    require_probabilities,
)
from densemble.ensemble.calibrate.temperature import fit_temperature
from densemble.ensemble.combine.log_odds import from_logits, to_logits
from densemble.ensemble.described import Described
from densemble.errors import DataError, UsageError
from densemble.tasks import Distribution

_PENALTY = 1e-5
"""Weight of half the squared distance from the temperature, in nats per pixel: a class with fewer than one pixel in
100,000 hardly moves, and other classes are hardly affected."""


@dataclass(frozen=True)
class VectorScaling(Described):
    """Log-probability of each class times its scale plus its bias (vector scaling, Guo et al. 2017).

    For Bernoulli channels it uses the log-odds, each channel separately (Platt 1999).

    Attributes:
        scales: K numbers.
        biases: K numbers, in nats.
        distribution: distribution of the maps.

    Raises:
        UsageError: the numbers of scales and biases differ, a number is not finite, or maps are not probabilities.
    """

    scales: tuple[float, ...]
    biases: tuple[float, ...]
    distribution: Distribution

    kind = "vector"

    def __post_init__(self) -> None:
        require_probabilities(self.distribution)
        if not self.scales or len(self.scales) != len(self.biases):
            raise UsageError(f"{len(self.scales)} scales and {len(self.biases)} biases; give one of each per class")
        if not all(math.isfinite(number) for number in (*self.scales, *self.biases)):
            raise UsageError(f"scales {self.scales} and biases {self.biases} must be finite")

    def apply(self, maps: Tensor) -> Tensor:
        """Calibrate probabilities ``(B, K, h, w)``.

        Raises:
            UsageError: the number of channels is not K.
        """
        if maps.shape[1] != len(self.scales):
            raise UsageError(
                f"a calibration of {len(self.scales)} classes cannot be applied to {maps.shape[1]} channels"
            )
        shape = (-1, *[1] * (maps.ndim - 2))
        scale, bias = (maps.new_tensor(numbers).view(shape) for numbers in (self.scales, self.biases))
        return from_logits(to_logits(maps, self.distribution) * scale + bias, self.distribution)


def fit_vector_scaling(
    images: Images,
    distribution: Distribution,
    ignored: int = 255,
    report: Callable[[str], None] = lambda line: None,
) -> VectorScaling:
    """Fit scales and biases by maximum likelihood of all known held-out pixels.

    Starts at the best temperature; the likelihood of the result is not lower. A class that occurs at no known pixel,
    and a channel that is positive at all known pixels, keep this temperature and no bias. Arguments: see
    :func:`fit_temperature`.

    Raises:
        DataError: a label is neither a class nor the ignored label, or there are no images.
    """
    neutral = 1 / fit_temperature(images, distribution, ignored, report)
    varied = _varied(images, distribution, ignored)
    if not len(varied):
        raise DataError("there is no held-out image to calibrate on; give validation images")
    start = torch.tensor([neutral, 0.0], dtype=torch.float64).repeat_interleave(len(varied))
    free = varied.repeat(2)

    def measure(parameters: Tensor) -> Curvature:
        point = start.clone()
        point[free] = parameters
        whole = _measure(images, distribution, ignored, point)
        away = parameters - start[free]
        penalty = _PENALTY * torch.eye(len(parameters), dtype=torch.float64)
        return Curvature(
            whole.loss + _PENALTY / 2 * float(away @ away),
            whole.gradient[free] + _PENALTY * away,
            whole.hessian[free][:, free] + penalty,
        )

    best = start.clone()
    if varied.any():
        best[free] = minimize_convex(measure, start[free])
    scales, biases = best.view(2, -1).tolist()
    return VectorScaling(tuple(scales), tuple(biases), distribution)


def _varied(images: Images, distribution: Distribution, ignored: int) -> Tensor:
    """Return which classes occur at some known pixels but not at all of them, bool ``(K,)``."""
    positive = known = torch.zeros(0, dtype=torch.float64)
    for maps, target in images():
        pixels = read_known_pixels(maps, target, distribution, ignored)
        classes = len(pixels.logits)
        if isinstance(pixels, LabelledPixels):
            image_positive = torch.bincount(pixels.labels, minlength=classes).double()
            image_known = image_positive.new_full((classes,), pixels.size)
        else:
            image_positive, image_known = (part.double().sum(1) for part in (pixels.target, pixels.known))
        first = not len(positive)
        positive = image_positive if first else positive + image_positive
        known = image_known if first else known + image_known
    return (positive > 0) & (positive < known)


def _measure(images: Images, distribution: Distribution, ignored: int, point: Tensor) -> Curvature:
    """Mean negative log-likelihood and its derivatives with respect to the scales, followed by the biases."""
    loss, values = 0.0, 0
    gradient, hessian = torch.zeros_like(point), point.new_zeros(len(point), len(point))
    scale, bias = point.float().view(2, -1, 1)
    for maps, target in images():
        pixels = read_known_pixels(maps, target, distribution, ignored)
        logits = pixels.logits * scale + bias
        image = _categorical(pixels, logits) if isinstance(pixels, LabelledPixels) else _bernoulli(pixels, logits)
        loss, gradient, hessian = loss + image.loss, gradient + image.gradient, hessian + image.hessian
        values += pixels.size
    return Curvature(loss / values, gradient / values, hessian / values)


def _categorical(pixels: LabelledPixels, logits: Tensor) -> Curvature:
    z, labels = pixels
    total = torch.logsumexp(logits, dim=0)
    true = logits.gather(0, labels[None])[0]
    p = (logits - total).exp_()
    weighted = p * z
    residual = p.scatter_add(0, labels[None], p.new_full((1, len(labels)), -1.0))
    gradient = torch.cat([(residual * z).sum(1), residual.sum(1)])
    # The Hessian of logsumexp is the diagonal of the expectation minus the products of expectations (Boyd 2004, 3.1.5).
    stacked = torch.cat([weighted, p])
    hessian = _bands((weighted * z).sum(1), weighted.sum(1), p.sum(1)) - (stacked @ stacked.T).double()
    return Curvature(float((total - true).sum()), gradient.double(), hessian)


def _bernoulli(pixels: BernoulliPixels, logits: Tensor) -> Curvature:
    z, target, known = pixels
    p = torch.sigmoid(logits)
    loss = (known * (F.softplus(logits) - target * logits)).sum()
    residual, bend = known * (p - target), known * p * (1 - p)
    gradient = torch.cat([(residual * z).sum(1), residual.sum(1)])
    return Curvature(float(loss), gradient.double(), _bands((bend * z * z).sum(1), (bend * z).sum(1), bend.sum(1)))


def _bands(scales: Tensor, mixed: Tensor, biases: Tensor) -> Tensor:
    """Second derivatives within each class: by scale, mixed, and by bias; float64 ``(2K, 2K)``."""
    mixed = mixed.diag()
    return torch.cat([torch.cat([scales.diag(), mixed], 1), torch.cat([mixed, biases.diag()], 1)]).double()
