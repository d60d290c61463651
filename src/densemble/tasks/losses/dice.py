"""Soft Dice (Milletari et al. 2016, "V-Net")."""

from torch import Tensor

from densemble.tasks.losses.masked import masked_mean

_TINY = 1e-12


def dice(probabilities: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Compute 1 - soft Dice, with squares in the denominator, as the mean over the channels that occur in the batch.

    Args:
        probabilities: ``(B, K, h, w)``.
        target: 0 or 1, ``(B, K, h, w)``.
        valid: bool ``(B, 1, h, w)`` or ``(B, K, h, w)``.
    """
    weight = valid.to(probabilities.dtype)
    p, g = probabilities * weight, target * weight
    volume = g.sum((0, 2, 3))
    overlap = 2 * (p * g).sum((0, 2, 3)) / (p.square().sum((0, 2, 3)) + volume).clamp(min=_TINY)
    return masked_mean(1 - overlap, volume > 0)
