"""What computes a batch: all members, or a cascade of them, and never so many pixels at once that memory grows."""

from collections.abc import Callable

from torch import Tensor

from densemble.ensemble.cascade import Cascade, CascadeUse, Check, Policy, cascade_use
from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.membership import UnusableMaps
from densemble.ensemble.prediction import Prediction
from densemble.ensemble.uncertainty import Asked
from densemble.errors import UsageError
from densemble.inference.cascade_runner import predict_cascade, require_policy

PIXELS = 2_000_000
"""Of the images that are computed at once."""


def choose_policy(
    ensemble: Ensemble, keep: float | None, budget: float | None, say: Callable[[str], None]
) -> Policy | None:
    """When to stop early; ``None`` where neither a share of the score nor one of the cost is given.

    Args:
        ensemble: with a cascade.
        keep: share of the ensemble's score that is kept.
        budget: share of the ensemble's cost that is spent.
        say: takes what is known about the chosen policy, a line each.

    Raises:
        UsageError: both are given, no policy is good or cheap enough, or the ensemble has no cascade.
    """
    if keep is None and budget is None:
        return None
    if keep is not None and budget is not None:
        raise UsageError(f"keep = {keep} and budget = {budget} contradict each other; give one of them")
    cascade = ensemble.cascade
    if cascade is None:
        raise UsageError("this ensemble has no cascade; make one with `densemble assemble` from two members or more")
    policy = cascade.for_keep(keep) if keep is not None else cascade.for_budget(budget or 0.0)
    stops = f"stops when {policy.measure} < {policy.threshold:.3g}" if policy.threshold else "all members that it has"
    costs = f"costs {policy.cost:.2f} of all members{_kept(policy, cascade)}"
    check = cascade.check_near("keep", keep) if keep is not None else cascade.check_near("budget", budget or 0.0)
    checked = "not cross-fitted: its cost and score on other images are unknown"
    if check is not None:
        checked = (
            f"fitted on one half of the images and measured on the other, --{check.asked} {check.share:g} "
            f"costs {check.cost:.2f} of all members{_kept(check, cascade)}"
        )
    say(f"cascade: {' -> '.join(policy.members)}, {stops}; {costs} (fitted on these {cascade.images} images)")
    say(f"cascade: {checked}")
    return policy


def _kept(figures: Policy | Check, cascade: Cascade) -> str:
    return "" if figures.kept is None else f" and keeps {figures.kept:.4f} of {cascade.metric}"


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
        policy: of the ensemble's cascade; ``None``: all members see every image.
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
