"""Losses of one class per pixel: logits ``(B, K, h, w)``, labels int64 ``(B, h, w)``, valid bool ``(B, h, w)``."""

import torch
import torch.nn.functional as F
from torch import Tensor

from densemble.tasks.losses.masked import masked_mean

_GAMMA = 2


def one_hot(labels: Tensor, valid: Tensor, classes: int) -> Tensor:
    """Convert labels ``(B, h, w)`` to one-hot float32 ``(B, K, h, w)``; 0 in all channels where invalid."""
    numbers = torch.arange(classes, device=labels.device)[:, None, None]
    return ((labels[:, None] == numbers) & valid[:, None]).float()


def cross_entropy(logits: Tensor, labels: Tensor, valid: Tensor, class_weights: Tensor | None) -> Tensor:
    """Cross-entropy in nats; with class weights ``(K,)`` a weighted mean."""
    losses, weight, _ = _cross_entropy_map(logits, labels, valid, class_weights)
    return masked_mean(losses, weight)


def focal(logits: Tensor, labels: Tensor, valid: Tensor, class_weights: Tensor | None) -> Tensor:
    """Cross-entropy times (1 - p)^2, where p is the probability of the true class (Lin et al. 2017)."""
    losses, weight, p = _cross_entropy_map(logits, labels, valid, class_weights)
    return masked_mean((1 - p) ** _GAMMA * losses, weight)


def divergence(logits: Tensor, probabilities: Tensor, weight: Tensor) -> Tensor:
    """KL divergence of the prediction from probabilities ``(B, K, h, w)``, in nats; weight of pixels ``(B, h, w)``."""
    gap = torch.xlogy(probabilities, probabilities) - probabilities * F.log_softmax(logits, dim=1)
    return masked_mean(gap.sum(1), weight)


def _cross_entropy_map(
    logits: Tensor, labels: Tensor, valid: Tensor, class_weights: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return -log p of the true class, the weight of each pixel, and p."""
    labels = torch.where(valid, labels, 0)
    losses = F.cross_entropy(logits, labels, reduction="none")
    weight = valid.float() if class_weights is None else valid * class_weights[labels]
    return losses, weight, torch.exp(-losses)


def lovasz(probabilities: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
    """Lovász-softmax over the whole batch, as the mean over the classes that occur (Berman et al. 2018).

    It is the convex extension of 1 - IoU: the errors of a class, in descending order, are weighted by their increase of
    1 - IoU.
    """
    classes = probabilities.shape[1]
    target = one_hot(labels, valid, classes).movedim(1, 0)[:, valid]
    errors = (target - probabilities.movedim(1, 0)[:, valid]).abs()
    descending, order = errors.sort(dim=1, descending=True)
    steps = _jaccard_steps(target.gather(1, order))
    return masked_mean((descending * steps).sum(1), target.sum(1) > 0)


def _jaccard_steps(target: Tensor) -> Tensor:
    """Return the increase of 1 - IoU by each pixel if all before it are wrong; 0 or 1 ``(K, N)`` -> ``(K, N)``."""
    total = target.sum(1, keepdim=True)
    overlap = total - target.cumsum(1)
    union = total + (1 - target).cumsum(1)
    loss = 1 - overlap / union
    return torch.diff(loss, dim=1, prepend=loss.new_zeros(len(loss), 1))
