"""Running a cascade: the pictures that are still unsure go on to the next member in one dense batch."""

from dataclasses import dataclass

import torch
from torch import Tensor

from densemble.ensemble.cascade import UNSURENESS, Policy, unsureness
from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.membership import unusable
from densemble.ensemble.prediction import Prediction
from densemble.ensemble.resize import resize_maps
from densemble.ensemble.uncertainty import RunningUncertainty
from densemble.errors import ArtifactError, UsageError
from densemble.shapes import Size


@dataclass(frozen=True)
class CascadePrediction:
    """What a cascade says about a batch, and what it took.

    Attributes:
        prediction: of the batch; with a guarantee only where every picture saw all members, for which it was made.
        used: number of members that each picture saw, int64 ``(B,)``.
    """

    prediction: Prediction
    used: Tensor


def require_policy(ensemble: Ensemble, policy: Policy) -> None:
    """Checks that an ensemble has the members of a policy.

    Raises:
        UsageError: one is missing.
    """
    missing = [name for name in policy.members if name not in ensemble.members]
    if missing:
        raise UsageError(
            f"the cascade needs member '{missing[0]}', which the ensemble was loaded without; predict without a budget"
        )


@torch.no_grad()
def predict_cascade(
    ensemble: Ensemble, images: Tensor, policy: Policy, uncertainty: bool = False, batch: int | None = None
) -> CascadePrediction:
    """Each picture's prediction by the first members of a policy, as many as it needs.

    The map of a picture that saw k members is that of an ensemble of those k: same weights, rule and temperatures, and
    the calibration of the whole ensemble. Memory holds running sums, however many members there are.

    Args:
        ensemble: in eval mode.
        images: float ``(B, C, H, W)`` in [0, 1], on the ensemble's device; the more, the denser the later batches.
        policy: of the ensemble's cascade.
        uncertainty: also the maps of uncertainty, over the members that a picture saw.
        batch: members get exactly so many pictures at a time, the last time filled up; default all at once.

    Raises:
        UsageError: the policy has a member that the ensemble has not, or the images have another shape.
        ArtifactError: a member that gives no usable map.
    """
    require_policy(ensemble, policy)
    places = {name: place for place, name in enumerate(ensemble.members)}
    # What an ensemble guarantees was fitted for all of its members.
    whole = policy.threshold == 0 and len(policy.members) == len(ensemble.members)
    spread = uncertainty or UNSURENESS[policy.measure].members > 1 or (whole and ensemble.guarantee is not None)
    pictures = [_Picture(ensemble, spread) for _ in images]
    going = list(range(len(images)))
    left = images
    for stage, name in enumerate(policy.members, 1):
        maps = _member_maps(ensemble, name, left, batch)
        for place, own in zip(going, torch.split(maps, 1), strict=True):
            pictures[place].add(own, ensemble.weights[name], places[name])
        if stage == len(policy.members) or policy.threshold == 0:
            continue
        unsure = torch.cat([pictures[place].unsureness(policy.measure) for place in going])
        on = (unsure >= policy.threshold).nonzero().flatten().tolist()
        if not on:
            break
        if len(on) < len(going):
            going, left = [going[number] for number in on], left[on]
    used = torch.tensor([picture.members for picture in pictures])
    mean = torch.cat([ensemble.combined(picture.rule) for picture in pictures])
    running = [picture.running for picture in pictures if picture.running is not None]
    joined = RunningUncertainty.joined(running) if running else None
    return CascadePrediction(ensemble.conclude(mean, joined, uncertainty, whole), used)


class _Picture:
    """Running sums of one picture: its own rule, so that any rule does for pictures that stop at different members."""

    def __init__(self, ensemble: Ensemble, spread: bool) -> None:
        self.rule = ensemble.rule()
        self.running = RunningUncertainty(ensemble.task.distribution) if spread else None
        self.members = 0
        self._distribution = ensemble.task.distribution

    def add(self, maps: Tensor, weight: float, place: int) -> None:
        """Takes one member's maps ``(1, K, h, w)``."""
        self.rule.add(maps, weight, place)
        if self.running is not None:
            self.running.add(maps, weight)
        self.members += 1

    def unsureness(self, measure: str) -> Tensor:
        """How unsure the members so far are, ``(1,)``."""
        return unsureness(measure, self.rule.result(), self.running, self._distribution, self.members)


def _member_maps(ensemble: Ensemble, name: str, images: Tensor, batch: int | None) -> Tensor:
    """One member's activated maps ``(B, K, h, w)`` of the size that the whole ensemble gives."""
    member, task, temperature = ensemble.members[name], ensemble.task, ensemble.temperatures[name]
    if batch is None or not len(images):
        logits = member(images).float()
    else:
        logits = torch.cat([_filled(member, part, batch) for part in torch.split(images, batch)])
    reason = unusable(logits, len(images), task.out_channels)
    if reason is not None:
        raise ArtifactError(
            f"member '{name}' {reason}, and a cascade needs each of its members; check the picture, or predict without "
            "a budget"
        )
    maps = task.activation(logits / temperature if temperature != 1 else logits)
    return resize_maps(maps, _map_size(ensemble, images), task.target_kind == "density")


def _filled(member: torch.nn.Module, images: Tensor, batch: int) -> Tensor:
    """Logits of a part of a batch, run with exactly ``batch`` pictures."""
    missing = batch - len(images)
    filled = torch.cat([images, images[-1:].expand(missing, -1, -1, -1)]) if missing else images
    logits: Tensor = member(filled).float()
    return logits[: len(images)]


def _map_size(ensemble: Ensemble, images: Tensor) -> Size:
    """What the first member of the ensemble gives, whichever member comes first in the cascade."""
    _, first = next(ensemble.named_members())
    return first.spec.out_size or (int(images.shape[-2]), int(images.shape[-1]))
