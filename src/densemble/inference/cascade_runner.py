"""Running a cascade: the images that are still unsure go on to the next member in one dense batch."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from densemble.ensemble.cascade import UNSURENESS, Policy, unsureness
from densemble.ensemble.combination import Combination
from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.membership import UnusableMaps
from densemble.ensemble.prediction import Prediction
from densemble.ensemble.resize import resize_maps
from densemble.ensemble.uncertainty import Asked, RunningUncertainty, asked_maps
from densemble.errors import UsageError
from densemble.shapes import Size, size_of


@dataclass(frozen=True)
class CascadePrediction:
    """A cascade's prediction of a batch, and what it took.

    Attributes:
        prediction: as :meth:`Ensemble.predict_members` gives it; with a guarantee only where every image saw all
            members, for which the guarantee was fitted.
        used: number of members that each image saw, int64 ``(B,)``.
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
    ensemble: Ensemble, images: Tensor, policy: Policy, uncertainty: Asked = False, batch: int | None = None
) -> CascadePrediction:
    """Each image's prediction by the first members of a policy, as many as it needs.

    The map of an image that saw k members is that of an ensemble of those k: same weights, rule and temperatures, and
    the calibration of the whole ensemble. Memory holds running sums, for any number of members.

    Args:
        ensemble: in eval mode.
        images: float ``(B, C, H, W)`` in [0, 1], on the ensemble's device; the more, the denser the later batches.
        policy: of the ensemble's cascade.
        uncertainty: which maps of uncertainty, over the members that an image saw.
        batch: members get exactly so many images at a time, the last time filled up; default all at once.

    Raises:
        UsageError: the policy has a member that the ensemble has not, or the images have another shape.
        ArtifactError: a member that gives no usable map; :class:`UnusableMaps` where other images can be used.
    """
    require_policy(ensemble, policy)
    places = {name: place for place, name in enumerate(ensemble.members)}
    whole = policy.threshold == 0 and len(policy.members) == len(ensemble.members)
    # What an ensemble guarantees was fitted for all of its members.
    combination = ensemble.combination if whole else replace(ensemble.combination, guarantee=None)
    asked = asked_maps(uncertainty, ensemble.task.distribution)
    size = size_of(images)
    runs = [_Run(combination, policy, asked, size) for _ in images]
    going = list(range(len(images)))
    left = images
    for stage, name in enumerate(policy.members, 1):
        try:
            maps = _member_maps(ensemble, name, left, batch)
        except UnusableMaps as error:
            consequence = "and a cascade needs each of its members; check the image, or predict without a budget"
            raise error.at(going, len(images)).final(ensemble.members[name], consequence) from error
        for place, alone in zip(going, torch.split(maps, 1), strict=True):
            runs[place].add(alone, ensemble.weights[name], places[name])
        if stage == len(policy.members) or policy.threshold == 0:
            continue
        unsure = torch.cat([runs[place].unsureness() for place in going])
        on = (unsure >= policy.threshold).nonzero().flatten().tolist()
        if not on:
            break
        if len(on) < len(going):
            going, left = [going[number] for number in on], left[on]
    used = torch.tensor([run.members for run in runs])
    mean = torch.cat([combination.calibrate(run.rule.result()) for run in runs])
    running = [run.running for run in runs if run.running is not None]
    joined = RunningUncertainty.joined(running) if running else None
    return CascadePrediction(combination.conclude(mean, joined, asked), used)


class _Run:
    """Running sums of one image: its own rule, so that any rule works for images that stop at different members.

    Args:
        combination: of the members.
        policy: that it stops by.
        asked: maps of uncertainty.
        size: (H, W) of the image, at which they are computed.
    """

    def __init__(self, combination: Combination, policy: Policy, asked: frozenset[str], size: Size) -> None:
        self.rule, self.running = combination.accumulator(), combination.running(asked)
        self.members = 0
        # The threshold was fitted on maps of the ensemble's size.
        several = policy.threshold > 0 and UNSURENESS[policy.measure].members > 1
        self._stopping = RunningUncertainty(combination.task.distribution, (policy.measure,)) if several else None
        self._measure, self._task, self._size = policy.measure, combination.task, size

    def add(self, maps: Tensor, weight: float, place: int) -> None:
        """Takes one member's maps ``(1, K, h, w)``."""
        self.rule.add(maps, weight, place)
        if self._stopping is not None:
            self._stopping.add(maps, weight)
        if self.running is not None:
            self.running.add(resize_maps(maps, self._size, self._task.target_kind == "density"), weight)
        self.members += 1

    def unsureness(self) -> Tensor:
        """How unsure the members so far are, ``(1,)``."""
        return unsureness(self._measure, self.rule.result(), self._stopping, self._task.distribution, self.members)


def _member_maps(ensemble: Ensemble, name: str, images: Tensor, batch: int | None) -> Tensor:
    """One member's activated maps ``(B, K, h, w)`` of the size that the whole ensemble gives."""
    member = ensemble.members[name]
    if batch is None or not len(images):
        logits = member(images).float()
    else:
        logits = torch.cat([_filled(member, part, batch) for part in torch.split(images, batch)])
    return ensemble.activated(name, logits, images)


def _filled(member: torch.nn.Module, images: Tensor, batch: int) -> Tensor:
    """Logits of a part of a batch, run with exactly ``batch`` images."""
    missing = batch - len(images)
    filled = torch.cat([images, images[-1:].expand(missing, -1, -1, -1)]) if missing else images
    logits: Tensor = member(filled).float()
    return logits[: len(images)]
