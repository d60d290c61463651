"""Scores and gains of an ensemble with their confidence intervals."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from densemble.metrics import Objective

LEVEL = 0.95
RESAMPLES = 2000


class ConfidenceInterval(NamedTuple):
    """A value between the ends of its 95 % interval; NaN where it is undefined."""

    value: float
    low: float
    high: float


def resample(images: int, resamples: int = RESAMPLES, seed: int = 0) -> Tensor:
    """How often each image is drawn, with replacement, into each sample of as many: float64 ``(resamples, N)``."""
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.multinomial(images, [1 / images] * images, size=resamples)).double()


def bootstrap(rows: Tensor, objective: Objective, resamples: int = RESAMPLES, seed: int = 0) -> ConfidenceInterval:
    """A score and its percentile interval over resampled images (Efron 1979).

    Args:
        rows: statistics of each image ``(N, S)``.
        objective: whose statistics they are.
        resamples: number of samples.
        seed: of the samples.
    """
    drawn = objective.value(resample(len(rows), resamples, seed) @ rows)
    return _interval(objective.value(rows.sum(0)), drawn)


def bootstrap_gain(
    new: Tensor, old: Tensor, objective: Objective, resamples: int = RESAMPLES, seed: int = 0
) -> ConfidenceInterval:
    """How much better one mixture is than another, both on the same resampled images; above 0 is better.

    Args:
        new: statistics of each image ``(N, S)``.
        old: of the same images.
        objective: whose statistics they are.
        resamples: number of samples.
        seed: of the samples.
    """
    counts = resample(len(new), resamples, seed)
    sign = 1 if objective.higher_is_better else -1
    gains = sign * (objective.value(counts @ new) - objective.value(counts @ old))
    return _interval(sign * (objective.value(new.sum(0)) - objective.value(old.sum(0))), gains)


def bootstrap_mean(values: Tensor) -> ConfidenceInterval:
    """A mean over images, float64 ``(N,)``, and its percentile interval over resampled images."""
    return _interval(values.mean(), resample(len(values)) @ values / len(values))


def _interval(value: Tensor, drawn: Tensor) -> ConfidenceInterval:
    ends = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=drawn.dtype)
    low, high = torch.nanquantile(drawn, ends).tolist()
    return ConfidenceInterval(float(value), low, high)
