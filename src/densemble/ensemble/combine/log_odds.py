"""Conversion between probabilities and logits, finite for probabilities that float16 rounds to 0 or 1."""

import torch
from torch import Tensor

from densemble.tasks import Distribution

SMALLEST = 1e-7
"""Lower limit of probabilities. They are stored as float16, whose smallest positive value is 6e-8; 1 - 1e-7 < 1 in
float32."""


def to_logits(maps: Tensor, distribution: Distribution) -> Tensor:
    """Convert probabilities to log-probabilities (categorical) or log-odds (Bernoulli) of the same shape."""
    return maps.clamp(min=SMALLEST).log() if distribution == "categorical" else torch.logit(maps, eps=SMALLEST)


def from_logits(logits: Tensor, distribution: Distribution) -> Tensor:
    """Convert logits to probabilities ``(B, K, ...)``."""
    return torch.softmax(logits, dim=1) if distribution == "categorical" else torch.sigmoid(logits)
