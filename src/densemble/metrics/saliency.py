"""Saliency metrics as in the MIT benchmark (Bylinskii et al. 2019, "What do different evaluation metrics tell us
about saliency models?"), averaged over pictures."""

import torch
from torch import Tensor

from densemble.metrics.base import MetricValues

EPSILON = 2.2204e-16


def correlation(prediction: Tensor, target: Tensor) -> float:
    """CC: Pearson's correlation of two maps of one shape, -1..1; 0 where one of them is constant."""
    a = prediction - prediction.mean()
    b = target - target.mean()
    norm = a.norm() * b.norm()
    return float((a * b).sum() / norm) if norm > 0 else 0.0


def similarity(prediction: Tensor, target: Tensor) -> float:
    """SIM: overlap of two maps as distributions, 0..1."""
    return float(torch.minimum(_distribution(prediction), _distribution(target)).sum())


def divergence(prediction: Tensor, target: Tensor) -> float:
    """KLD of the prediction from the target, in nats, as distributions; 0 is perfect."""
    p, q = _distribution(prediction), _distribution(target)
    return float((q * torch.log(EPSILON + q / (p + EPSILON))).sum())


def scanpath(prediction: Tensor, points: Tensor) -> float:
    """NSS: mean of the standardized prediction at fixations ``(H, W)`` bool; 0 is chance."""
    spread = prediction.std(correction=0)
    return float(((prediction - prediction.mean()) / spread)[points].mean()) if spread > 0 else 0.0


def auc_judd(prediction: Tensor, points: Tensor) -> float:
    """AUC-Judd: area under the curve of fixated against other pixels, thresholds at the fixated values."""
    fixated = prediction[points].sort(descending=True).values
    others = prediction[~points].sort().values
    if len(others) == 0:
        return 0.5
    thresholds, counts = torch.unique_consecutive(fixated, return_counts=True)
    hit = counts.cumsum(0).double() / len(fixated)
    below = torch.searchsorted(others, thresholds, side="left")
    false = (len(others) - below).double() / len(others)
    zero, one = hit.new_zeros(1), hit.new_ones(1)
    return float(torch.trapezoid(torch.cat([zero, hit, one]), torch.cat([zero, false, one])))


def _distribution(values: Tensor) -> Tensor:
    total = values.sum()
    return values / total if total > 0 else torch.full_like(values, 1 / values.numel())


class SaliencyMetrics:
    """``cc sim kld``, and ``nss auc_judd`` over the pictures that have fixations."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def update(self, prediction: Tensor, target: Tensor, points: Tensor | None = None) -> None:
        """Adds one picture: prediction ``(1, H, W)``, target ``(H, W)`` >= 0 of any scale, fixations ``(H, W)`` bool.

        A target that is 0 everywhere says nothing and is left out of cc, sim and kld.

        Raises:
            ValueError: the prediction is not finite.
        """
        p, q = prediction.squeeze(0).double(), target.double()
        if not torch.isfinite(p).all():
            raise ValueError("the saliency prediction holds NaN or infinity")
        if q.sum() > 0:
            self._add("cc", correlation(p, q))
            self._add("sim", similarity(p, q))
            self._add("kld", divergence(p, q))
        if points is not None and points.any():
            self._add("nss", scanpath(p, points))
            self._add("auc_judd", auc_judd(p, points))

    def _add(self, key: str, value: float) -> None:
        self._sums[key] = self._sums.get(key, 0.0) + value
        self._counts[key] = self._counts.get(key, 0) + 1

    def compute(self) -> MetricValues:
        """Means over pictures."""
        return {key: total / self._counts[key] for key, total in self._sums.items()}
