"""Saliency metrics of the MIT/Tuebingen benchmark, averaged over images.

Definitions: the benchmark's MATLAB code (https://github.com/cvzoya/saliency, ``code_forMetrics``), explained in
Bylinskii et al. 2019, "What do different evaluation metrics tell us about saliency models?". Where that code returns
NaN or a random number, the docstrings here describe the value that is computed instead.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from densemble.metrics.metric import Metric, MetricValues, Objective, ScoredImage, counted, mean, no_statistics

EPSILON = 2.2204e-16


def correlations(maps: Tensor, target: Tensor) -> Tensor:
    """CC: Pearson's correlation of each map with the target, -1..1; 0 if one of them is constant.

    Args:
        maps: float64 ``(M, N)``, N pixels.
        target: float64 ``(N,)``.

    Returns:
        float64 ``(M,)``.
    """
    a, b = maps - maps.mean(1, keepdim=True), target - target.mean()
    norm = a.norm(dim=1) * b.norm()
    return torch.where(norm > 0, a @ b / norm, 0.0)


def similarities(maps: Tensor, target: Tensor) -> Tensor:
    """SIM: overlap of each map with the target as distributions, 0..1; see :func:`correlations` for the shapes.

    Map and target are first rescaled to 0..1 by their minimum and maximum, then divided by their sum, as in
    ``similarity.m``: adding a constant to a map changes nothing. A constant map gives 0; the benchmark gives 0 for a
    map of zeros and NaN for any other constant map.
    """
    return torch.minimum(_rescaled(maps), _rescaled(target[None])).sum(1)


def divergences(maps: Tensor, target: Tensor) -> Tensor:
    """KLD: divergence of each map from the target as distributions, in nats; 0 is perfect. See :func:`correlations`.

    Maps are divided by their sum without rescaling, as in ``KLdiv.m``. A map of zeros counts as uniform.
    """
    p, q = _distributions(maps), _distributions(target[None])
    return (q * torch.log(EPSILON + q / (p + EPSILON))).sum(1)


def scanpaths(maps: Tensor, points: Tensor) -> Tensor:
    """NSS: mean of each standardized map at the fixations ``(N,)`` bool; 0 is chance, and 0 if a map is constant.

    The standard deviation is that of a sample (divisor N - 1), as in ``NSS.m``.
    """
    heights = maps[:, points].mean(1) - maps.mean(1)
    spread = maps.std(1, correction=1)
    return torch.where(spread > 0, heights / spread, 0.0)


def auc_judd(prediction: Tensor, points: Tensor) -> float:
    """AUC-Judd: the expected value of ``AUC_Judd.m`` over its jitter.

    ``AUC_Judd.m`` uses the values at the N fixated pixels as thresholds and computes the trapezoidal area of hits
    against false alarms among all other pixels. It puts equal values in random order by adding noise of up to 1e-7.
    This function computes the mean over all orders exactly, so the result is deterministic. Without equal values it is
    the number of the benchmark.

    The trapezoids credit a pixel between two thresholds with half a fixation, so the area exceeds the Mann-Whitney
    statistic by 1/(2N) times the share of other pixels above the lowest threshold: chance is
    ``0.5 + 0.5 / (N + 1)``, not 0.5.

    Args:
        prediction: map of any shape.
        points: fixations, bool of the same shape; at least one. The result is 0.5 if all pixels are fixated.
    """
    fixated = prediction[points].sort().values
    others = prediction[~points].sort().values
    if len(others) == 0:
        return 0.5
    below = torch.searchsorted(others, fixated, side="left").double()
    up_to = torch.searchsorted(others, fixated, side="right").double()
    mann_whitney = float((below + up_to).sum() / 2 / (len(fixated) * len(others)))
    # Share of the pixels equal to the lowest fixated value that are above the lowest of `lowest` fixations in random
    # order: lowest / (lowest + 1).
    lowest = int((fixated == fixated[0]).sum())
    above = len(others) - float(up_to[0]) + float(up_to[0] - below[0]) * lowest / (lowest + 1)
    return mann_whitney + above / len(others) / (2 * len(fixated))


def _rescaled(maps: Tensor) -> Tensor:
    """Shift maps ``(M, N)`` to a minimum of 0 and scale them to sum 1; a constant map becomes 0."""
    values = maps - maps.amin(1, keepdim=True)
    total = values.sum(1, keepdim=True)
    return torch.where(total > 0, values / total, 0.0)


def _distributions(maps: Tensor) -> Tensor:
    """Scale maps ``(M, N)`` to sum 1; a map of zeros becomes uniform."""
    total = maps.sum(1, keepdim=True)
    return torch.where(total > 0, maps / total, 1 / maps.shape[1])


class SaliencyMetrics(Metric):
    """``cc sim kld``, and ``nss auc_judd`` over the images with fixations; targets ``(H, W)`` >= 0 of any scale.

    A target that is 0 everywhere is left out of cc, sim and kld. A metric without any image is absent.
    """

    def __init__(self) -> None:
        super().__init__(
            Objective("cc", True, partial(_of_target, correlations), mean),
            Objective("sim", True, partial(_of_target, similarities), mean),
            Objective("kld", False, partial(_of_target, divergences), mean),
            Objective("nss", True, partial(_of_fixations, scanpaths), mean, needs_fixations=True),
            Objective("auc_judd", True, partial(_of_fixations, _areas), mean, needs_fixations=True),
        )

    def update(self, prediction: Tensor, target: Tensor, points: Tensor | None = None) -> None:
        """Add one image.

        Raises:
            ValueError: the prediction is not finite.
        """
        if not torch.isfinite(prediction).all():
            raise ValueError("the saliency prediction holds NaN or infinity")
        super().update(prediction, target, points)

    def compute(self) -> MetricValues:
        """Return means over images."""
        return {name: value for name, value in super().compute().items() if value is not None}


def _flat(image: ScoredImage) -> Tensor:
    return image.maps.double().flatten(1)


def _of_target(metric: Callable[[Tensor, Tensor], Tensor], image: ScoredImage) -> Tensor:
    """Return statistics of a metric of maps ``(M, N)`` and a target ``(N,)``."""
    if image.target.sum() <= 0:
        return no_statistics(image)
    return counted(metric(image.once(_flat), image.target.double().flatten()), 1)


def _of_fixations(metric: Callable[[Tensor, Tensor], Tensor], image: ScoredImage) -> Tensor:
    """Return statistics of a metric of maps ``(M, N)`` and fixations ``(N,)``."""
    if image.points is None or not image.points.any():
        return no_statistics(image)
    return counted(metric(image.once(_flat), image.points.flatten()), 1)


def _areas(maps: Tensor, points: Tensor) -> Tensor:
    return torch.tensor([auc_judd(candidate, points) for candidate in maps], dtype=torch.float64)
