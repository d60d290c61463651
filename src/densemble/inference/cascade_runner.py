"""Cascade: members run in order, and an image stops when its prediction is certain enough."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from densemble.ensemble.cascade import UNCERTAINTY_MEASURES, Policy, unsureness
from densemble.ensemble.combination import Combination
from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.membership import UnusableMaps
from densemble.ensemble.prediction import Prediction
from densemble.ensemble.resize import resize_maps
from densemble.ensemble.uncertainty import Asked, RunningUncertainty, requested_maps
from densemble.errors import UsageError
from densemble.inference.runtime.tuned_network import padded_batch
from densemble.shapes import Size, size_of


@dataclass(frozen=True)
class CascadePrediction:
    """A cascade's prediction of a batch.

    Attributes:
        prediction: see :meth:`Ensemble.predict_members`. It has a guarantee only if the policy runs all members on
            every image, because the guarantee was fitted for all members.
        used: number of members that ran on each image, int64 ``(B,)``.
    """

    prediction: Prediction
    used: Tensor


def require_policy(ensemble: Ensemble, policy: Policy) -> None:
    """Check that an ensemble has the members of a policy.

    Raises:
        UsageError: a member is missing.
    """
    missing = [name for name in policy.members if name not in ensemble.members]
    if missing:
        raise UsageError(
            f"the cascade needs member '{missing[0]}', but the ensemble was loaded without it; predict without a budget"
        )


@torch.no_grad()
def predict_cascade(
    ensemble: Ensemble, images: Tensor, policy: Policy, uncertainty: Asked = False, batch: int | None = None
) -> CascadePrediction:
    """Run the members of a policy in order on each image, until the prediction of the image is certain enough.

    If k members run on an image, its map equals that of an ensemble of these k members with the same weights, rule and
    temperatures. The calibration is that of the whole ensemble. Only running sums are stored, so memory does not grow
    with the number of members.

    Args:
        ensemble: in eval mode.
        images: float ``(B, C, H, W)`` in [0, 1], on the ensemble's device. With more images, later members
            run on larger batches.
        policy: a policy of the ensemble's cascade.
        uncertainty: uncertainty maps to compute, over the members that ran on an image.
        batch: number of images in each call of a member; the last call is padded to it. Default: all images at once.

    Raises:
        UsageError: the ensemble lacks a member of the policy, or the images have the wrong shape.
        ArtifactError: the maps of a member are not usable. The error is an :class:`UnusableMaps` that lists the images,
            unless the weights of the member are not finite.
    """
    require_policy(ensemble, policy)
    member_index = {name: index for index, name in enumerate(ensemble.members)}
    all_members = policy.threshold == 0 and len(policy.members) == len(ensemble.members)
    # The guarantee was fitted for all members.
    combination = ensemble.combination if all_members else replace(ensemble.combination, guarantee=None)
    asked = requested_maps(uncertainty, ensemble.task.distribution)
    size = size_of(images)
    sums = [_ImageSums(combination, policy, asked, size) for _ in images]
    remaining = list(range(len(images)))
    batch_images = images
    for stage, name in enumerate(policy.members, 1):
        try:
            maps = _member_maps(ensemble, name, batch_images, batch)
        except UnusableMaps as error:
            consequence = "and a cascade needs each of its members; check the image, or predict without a budget"
            raise error.at(remaining, len(images)).final(ensemble.members[name], consequence) from error
        for index, image_maps in zip(remaining, torch.split(maps, 1), strict=True):
            sums[index].add(image_maps, ensemble.weights[name], member_index[name])
        if stage == len(policy.members) or policy.threshold == 0:
            continue
        uncertainties = torch.cat([sums[index].unsureness() for index in remaining])
        uncertain = (uncertainties >= policy.threshold).nonzero().flatten().tolist()
        if not uncertain:
            break
        if len(uncertain) < len(remaining):
            remaining, batch_images = [remaining[position] for position in uncertain], batch_images[uncertain]
    used = torch.tensor([image.members for image in sums])
    mean = torch.cat([combination.calibrate(image.rule.result()) for image in sums])
    running = [image.running for image in sums if image.running is not None]
    batch_running = RunningUncertainty.joined(running) if running else None
    return CascadePrediction(combination.conclude(mean, batch_running, asked), used)


class _ImageSums:
    """Running sums of one image. Each image has its own, because images stop after different members.

    Args:
        combination: how members are combined.
        policy: determines when the image stops.
        asked: names of the uncertainty maps.
        size: (H, W) of the image; the uncertainty maps are computed at this size.
    """

    def __init__(self, combination: Combination, policy: Policy, asked: frozenset[str], size: Size) -> None:
        self.rule, self.running = combination.accumulator(), combination.running(asked)
        self.members = 0
        # These maps keep the map size of the ensemble, because the threshold was fitted at that size.
        needs_several = policy.threshold > 0 and UNCERTAINTY_MEASURES[policy.measure].members > 1
        self._stopping = RunningUncertainty(combination.task.distribution, (policy.measure,)) if needs_several else None
        self._measure, self._task, self._size = policy.measure, combination.task, size

    def add(self, maps: Tensor, weight: float, member_index: int) -> None:
        """Add one member's maps ``(1, K, h, w)``."""
        self.rule.add(maps, weight, member_index)
        if self._stopping is not None:
            self._stopping.add(maps, weight)
        if self.running is not None:
            self.running.add(resize_maps(maps, self._size, self._task.target_kind == "density"), weight)
        self.members += 1

    def unsureness(self) -> Tensor:
        """Mean uncertainty of the image after the members that were added, ``(1,)``."""
        return unsureness(self._measure, self.rule.result(), self._stopping, self._task.distribution, self.members)


def _member_maps(ensemble: Ensemble, name: str, images: Tensor, batch: int | None) -> Tensor:
    """One member's activated maps ``(B, K, h, w)`` at the map size of the ensemble."""
    member = ensemble.members[name]
    if batch is None or not len(images):
        logits = member(images).float()
    else:
        parts = torch.split(images, batch)
        logits = torch.cat([member(padded_batch(part, batch)).float()[: len(part)] for part in parts])
    return ensemble.activated(name, logits, images)
