"""Probabilities as logits and back, finite where a 16-bit float says 0 or 1."""

import torch
from torch import Tensor

from densemble.tasks import Distribution

SMALLEST = 1e-7
"""Probabilities are kept as 16-bit floats, whose smallest positive value is 6e-8; 1 - 1e-7 is still no 1 in 32 bits."""


def to_logits(maps: Tensor, distribution: Distribution) -> Tensor:
    """Log-probabilities (categorical) or log-odds (Bernoulli) of the same shape."""
    return maps.clamp(min=SMALLEST).log() if distribution == "categorical" else torch.logit(maps, eps=SMALLEST)


def from_logits(logits: Tensor, distribution: Distribution) -> Tensor:
    """The probabilities ``(B, K, ...)`` of logits."""
    return torch.softmax(logits, dim=1) if distribution == "categorical" else torch.sigmoid(logits)
