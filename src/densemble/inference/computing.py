"""What computes a batch: all members, or a cascade of them, and never so many pixels at once that memory grows."""

from collections.abc import Callable

from torch import Tensor

from densemble.ensemble.cascade import CascadeUse, Policy, cascade_use
from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.membership import UnusableMaps
from densemble.ensemble.prediction import Prediction
from densemble.ensemble.uncertainty import Asked
from densemble.inference.cascade import predict_cascade, require_policy

PIXELS = 2_000_000
"""Of the pictures that are computed at once."""


def computing(
    ensemble: Ensemble,
    uncertainty: Asked,
    policy: Policy | None = None,
    used: Callable[[CascadeUse], None] = lambda use: None,
) -> Callable[[Tensor], Prediction]:
    """A function images ``(B, C, H, W)`` in [0, 1] -> prediction of the batch, on the ensemble's device.

    Args:
        ensemble: in eval mode.
        uncertainty: which maps of uncertainty.
        policy: of the ensemble's cascade; ``None``: all members see every picture.
        used: told what a batch spent under a policy.

    The function raises :class:`UnusableMaps` for images that a member gives no usable map of and that cannot be
    predicted without it; the others of the batch can.

    Raises:
        UsageError: the policy has a member that the ensemble has not.
    """
    if policy is not None:
        require_policy(ensemble, policy)
    device = next(ensemble.parameters()).device

    def part(images: Tensor) -> Prediction:
        placed = images.to(device, non_blocking=True)
        if policy is None:
            return ensemble.predict_members(placed, uncertainty)
        found = predict_cascade(ensemble, placed, policy, uncertainty)
        assert ensemble.cascade is not None
        used(cascade_use(found.used, policy, ensemble.cascade.shares))
        return found.prediction

    def compute(images: Tensor) -> Prediction:
        at_once = max(PIXELS // (images.shape[-2] * images.shape[-1]), 1)
        parts = []
        for first in range(0, len(images), at_once):
            few = images[first : first + at_once]
            try:
                parts.append(part(few))
            except UnusableMaps as error:
                raise error.at(range(first, first + len(few)), len(images)) from error
        return Prediction.cat(parts)

    return compute
