"""Losses of one class per pixel: logits ``(B, K, h, w)``, labels int64 ``(B, h, w)``, valid bool ``(B, h, w)``."""

import torch
import torch.nn.functional as F
from torch import Tensor

from densemble.tasks.losses.masked import masked_mean

_GAMMA = 2


def one_hot(labels: Tensor, valid: Tensor, classes: int) -> Tensor:
    """Labels ``(B, h, w)`` -> float32 ``(B, K, h, w)``; 0 in all channels where invalid."""
    numbers = torch.arange(classes, device=labels.device)[:, None, None]
    return ((labels[:, None] == numbers) & valid[:, None]).float()


def cross_entropy(logits: Tensor, labels: Tensor, valid: Tensor, class_weights: Tensor | None) -> Tensor:
    """Cross-entropy in nats; with weights ``(K,)`` as a weighted mean."""
    surprise, weight, _ = _surprise(logits, labels, valid, class_weights)
    return masked_mean(surprise, weight)


def focal(logits: Tensor, labels: Tensor, valid: Tensor, class_weights: Tensor | None) -> Tensor:
    """Cross-entropy times (1 - p)^2, p the probability of the true class (Lin et al. 2017)."""
    surprise, weight, p = _surprise(logits, labels, valid, class_weights)
    return masked_mean((1 - p) ** _GAMMA * surprise, weight)


def _surprise(
    logits: Tensor, labels: Tensor, valid: Tensor, class_weights: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """-log p of the true class, the weight of each pixel, and p."""
    labels = torch.where(valid, labels, 0)
    surprise = F.cross_entropy(logits, labels, reduction="none")
    weight = valid.float() if class_weights is None else valid * class_weights[labels]
    return surprise, weight, torch.exp(-surprise)


def lovasz(probabilities: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
    """Lovász-softmax over the whole batch, mean over the classes that occur (Berman et al. 2018).

    The convex extension of 1 - IoU: errors of a class, from the largest on, are weighted by what each adds to 1 - IoU.
    """
    classes = probabilities.shape[1]
    wanted = one_hot(labels, valid, classes).movedim(1, 0)[:, valid]
    errors = (wanted - probabilities.movedim(1, 0)[:, valid]).abs()
    descending, order = errors.sort(dim=1, descending=True)
    steps = _jaccard_steps(wanted.gather(1, order))
    return masked_mean((descending * steps).sum(1), wanted.sum(1) > 0)


def _jaccard_steps(wanted: Tensor) -> Tensor:
    """What each pixel adds to 1 - IoU when it turns wrong after all before it; 0 or 1 ``(K, N)`` -> ``(K, N)``."""
    total = wanted.sum(1, keepdim=True)
    overlap = total - wanted.cumsum(1)
    union = total + (1 - wanted).cumsum(1)
    loss = 1 - overlap / union
    return torch.diff(loss, dim=1, prepend=loss.new_zeros(len(loss), 1))
