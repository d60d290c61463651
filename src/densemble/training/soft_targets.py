"""Soft targets: predictions of an ensemble as targets of a student, beside or instead of the targets of the data.

One batch of targets is one float32 tensor ``(B, K + 1 + L, h, w)``: the K maps of the ensemble, its certainty, and the
L channels of the target, which are NaN for an unlabelled image. Image, maps and target are augmented together.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from densemble.data.decoded_cache import unit
from densemble.data.targets import resize_target
from densemble.data.transforms import Change, apply_change, draw_change
from densemble.data.transforms.geometry import move_target
from densemble.ensemble.resize import resize_maps
from densemble.shapes import Array, Size, size_of
from densemble.tasks import Task
from densemble.tasks.task import TargetKind
from densemble.training.dataset import DecodedSamples, read_target

Weighting = Literal["certain", "uncertain", "equal"]

WEIGHTINGS: dict[Weighting, Callable[[Tensor], Tensor]] = {
    "certain": lambda certainty: certainty,
    "uncertain": lambda certainty: 1.5 - certainty,
    "equal": torch.ones_like,
}
"""Weight of a pixel from the certainty of the ensemble (above 0, at most 1), by name.

``uncertain`` weights pixels where the members disagree up to three times as much as the others. ``certain`` does the
opposite, in the direction of Yu et al. 2019 ("Uncertainty-aware self-ensembling"), who leave out such pixels.
"""


@dataclass(frozen=True, eq=False)
class SoftTargets:
    """Predictions of an ensemble for the training images, and for unlabelled images.

    Attributes:
        maps: activated maps ``(N, K, h, w)``: those of the labelled images first.
        doubt: disagreement of the members ``(N, h, w)`` >= 0: mutual information, or the variance of values.
        mean_doubt: mean of ``doubt`` over all images.
        unlabelled: unlabelled images ``(M, C, H, W)`` of the same size and type as the labelled ones.
        label_share: share of the loss on targets, 0 to 1, for the labelled images.
        weighting: row of ``WEIGHTINGS``.
    """

    maps: Array
    doubt: Array
    mean_doubt: float
    unlabelled: Array
    label_share: float
    weighting: Weighting

    def __len__(self) -> int:
        return len(self.maps)

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickling a memory map would copy the whole array; instead, the other process opens the file.
        arrays = tuple(
            str(array.filename) if isinstance(array, np.memmap) else array
            for array in (self.maps, self.doubt, self.unlabelled)
        )
        return _reopen, (arrays, self.mean_doubt, self.label_share, self.weighting)

    def read(self, index: int) -> tuple[Tensor, Tensor]:
        """Read the maps ``(K, h, w)`` and the certainty ``(1, h, w)`` of an image, float32.

        The certainty is 1 / (1 + doubt / mean doubt), an inverse variance with a floor: 1 where all members agree, and
        0.5 where they disagree as much as on average.
        """
        maps, doubt = (torch.from_numpy(np.array(array[index], np.float32)) for array in (self.maps, self.doubt))
        return maps, 1 / (1 + doubt[None] / max(self.mean_doubt, 1e-12))

    def loss(self, task: Task) -> "SoftLoss":
        """Return the loss of logits and a batch of :class:`SoftSamples`."""
        return SoftLoss(task, self.label_share, self.weighting)


def _reopen(
    arrays: tuple[str | Array, ...], mean_doubt: float, label_share: float, weighting: Weighting
) -> SoftTargets:
    maps, doubt, unlabelled = (np.load(a, mmap_mode="r") if isinstance(a, str) else a for a in arrays)
    return SoftTargets(maps, doubt, mean_doubt, unlabelled, label_share, weighting)


@dataclass(frozen=True)
class SoftLoss:
    """Loss on the maps of an ensemble, mixed with the task's loss on the targets of the labelled images.

    With label share s, it is (1 - s) x soft loss + s x labelled share of the batch x loss on the targets.
    """

    task: Task
    label_share: float
    weighting: Weighting

    def __call__(self, logits: Tensor, packed: Tensor) -> Tensor:
        channels = self.task.out_channels
        maps, certainty, targets = packed[:, :channels], packed[:, channels], packed[:, channels + 1 :]
        known = certainty.isfinite() & maps.isfinite().all(1)
        weight = torch.where(known, WEIGHTINGS[self.weighting](certainty), 0.0)
        unknown = torch.nan if self.task.target_kind == "pixels" else 0.0
        maps = torch.where(known[:, None], maps, unknown)
        loss = (1 - self.label_share) * self.task.soft_loss(logits, maps, weight)
        labelled = ~targets.isnan().flatten(1).all(1)
        if self.label_share == 0 or not bool(labelled.any()):
            return loss
        targets = targets[labelled] if self.task.planes else targets[labelled, 0]
        on_targets = self.task.loss(logits[labelled], targets)
        return loss + self.label_share * labelled.float().mean() * on_targets


def soft_kind(kind: TargetKind) -> TargetKind:
    """Return how maps of a task are resampled: as its targets, but probabilities of labels and masks as ``pixels``."""
    return "pixels" if kind in ("labels", "masks") else kind


@dataclass(frozen=True, eq=False)
class SoftSamples(Dataset[Any]):
    """Augmented images ``(C, H, W)`` in [0, 1] with their packed targets ``(K + 1 + L, h, w)``; see this module.

    Attributes:
        labelled: the labelled training images with their augmentation.
        soft: predictions of the ensemble for the labelled images, followed by those for the unlabelled ones.
    """

    labelled: DecodedSamples
    soft: SoftTargets

    def __len__(self) -> int:
        return len(self.soft)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = key
        base, count = self.labelled, len(self.labelled)
        is_labelled = index < count
        image = unit(base.split.images[index] if is_labelled else self.soft.unlabelled[index - count])
        target = read_target(base.split, index if is_labelled else 0)
        size = size_of(image)
        change = draw_change(base.augmentation, (base.seed, epoch, index), size)
        image, target = apply_change(change, image, target, base.kind, base.fill)
        target = resize_target(target, base.target_size, base.kind).float()
        target = target if target.ndim == 3 else target[None]
        maps, certainty = self.soft.read(index)
        parts = [
            _moved(change, maps, size, base.target_size, soft_kind(base.kind)),
            _moved(change, certainty, size, base.target_size, "pixels"),
            target if is_labelled else torch.full_like(target, torch.nan),
        ]
        return image, torch.cat(parts)


def _moved(change: Change, maps: Tensor, image_size: Size, target_size: Size, kind: TargetKind) -> Tensor:
    """Apply the geometry of a change to maps ``(K, h, w)`` and return them at ``target_size``.

    A warp is in pixels of the image, so the maps are enlarged for it.
    """
    if change.warp is not None:
        maps = resize_maps(maps[None], image_size, kind == "density")[0]
    return resize_target(move_target(change, maps, kind, torch.nan), target_size, kind)
