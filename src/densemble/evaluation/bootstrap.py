"""Bootstrap confidence intervals of scores and gains."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from densemble.metrics import Objective

LEVEL = 0.95
RESAMPLES = 2000


class ConfidenceInterval(NamedTuple):
    """A value and the ends of its 95 % interval; NaN where it is undefined."""

    value: float
    low: float
    high: float


def resample(images: int, resamples: int = RESAMPLES, seed: int = 0) -> Tensor:
    """Draw bootstrap samples of N out of N images with replacement.

    Returns:
        How often each sample contains each image, float64 ``(resamples, N)``.
    """
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.multinomial(images, [1 / images] * images, size=resamples)).double()


def bootstrap(rows: Tensor, objective: Objective, resamples: int = RESAMPLES, seed: int = 0) -> ConfidenceInterval:
    """Compute a score and its percentile interval over resampled images (Efron 1979).

    Args:
        rows: statistics of each image, ``(N, S)``.
        objective: the objective that the statistics belong to.
        resamples: number of bootstrap samples.
        seed: seed of the bootstrap samples.
    """
    samples = objective.value(resample(len(rows), resamples, seed) @ rows)
    return _interval(objective.value(rows.sum(0)), samples)


def bootstrap_gain(
    new: Tensor, old: Tensor, objective: Objective, resamples: int = RESAMPLES, seed: int = 0
) -> ConfidenceInterval:
    """Compute the gain of one prediction over another on the same resampled images; above 0 is better.

    Args:
        new: statistics of each image, ``(N, S)``.
        old: statistics of the same images for the prediction to compare with, ``(N, S)``.
        objective: the objective that the statistics belong to.
        resamples: number of bootstrap samples.
        seed: seed of the bootstrap samples.
    """
    counts = resample(len(new), resamples, seed)
    sign = 1 if objective.higher_is_better else -1
    gains = sign * (objective.value(counts @ new) - objective.value(counts @ old))
    return _interval(sign * (objective.value(new.sum(0)) - objective.value(old.sum(0))), gains)


def bootstrap_mean(values: Tensor) -> ConfidenceInterval:
    """Compute the mean over images of float64 ``(N,)`` and its percentile interval over resampled images."""
    return _interval(values.mean(), resample(len(values)) @ values / len(values))


def _interval(value: Tensor, samples: Tensor) -> ConfidenceInterval:
    ends = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=samples.dtype)
    low, high = torch.nanquantile(samples, ends).tolist()
    return ConfidenceInterval(float(value), low, high)
