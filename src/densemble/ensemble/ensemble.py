"""The ensemble: members, weights and a rule as one ``nn.Module``."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from densemble.ensemble.combine import COMBINE
from densemble.ensemble.prediction import Prediction
from densemble.ensemble.resize import resize_maps
from densemble.ensemble.uncertainty import RunningUncertainty, entropy
from densemble.errors import UsageError
from densemble.nets.dense import DenseModel
from densemble.shapes import Size
from densemble.tasks import SaliencyTask, SegmentationTask, Task


class Ensemble(nn.Module):
    """Several members that answer as one: images ``(B, 3, H, W)`` RGB in [0, 1] -> activated maps ``(B, K, h, w)``.

    Members run one after the other into running sums: memory does not grow with their number. A member whose map
    has another size than the first one's is resized to it.

    Args:
        members: dense models, by name or in a row; all with the same K.
        weights: one positive number each; default all 1. A member of weight 0 is left out: not run, not saved.
        task: what the maps mean; default saliency for one channel, segmentation for several.
        combine: row of ``COMBINE``.
        metrics: what was measured on held-out data, kept with the ensemble.
        temperatures: each member's logits are divided by its own; default 1.
        reading: how pictures were read in training (``bands``, ``image_range``), kept for those that come later.

    Raises:
        UsageError: no members, unequal channels, weights that are negative, not finite or of another number,
            temperatures that are not positive.
    """

    def __init__(
        self,
        members: Sequence[DenseModel] | Mapping[str, DenseModel],
        weights: Sequence[float] | None = None,
        task: Task | None = None,
        combine: str = "mean",
        metrics: dict[str, Any] | None = None,
        temperatures: Mapping[str, float] | None = None,
        reading: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        named = dict(members) if isinstance(members, Mapping) else _name(members)
        if not named:
            raise UsageError("an ensemble needs at least one member")
        if combine not in COMBINE:
            raise UsageError(f"no combination rule is named '{combine}'; there are: {', '.join(COMBINE)}")
        given = [1.0] * len(named) if weights is None else [float(weight) for weight in weights]
        if len(given) != len(named):
            raise UsageError(f"{len(given)} weights for {len(named)} members; give one each")
        if any(not math.isfinite(weight) or weight < 0 for weight in given) or not sum(given):
            raise UsageError(f"weights {given} must be >= 0, finite and not all 0")
        kept = {name: (m, w) for (name, m), w in zip(named.items(), given, strict=True) if w > 0}
        channels = {name: member.spec.out_channels for name, (member, _) in kept.items()}
        if len(set(channels.values())) > 1:
            raise UsageError(f"members give different numbers of channels: {channels}")
        taken = {name: member.spec.in_channels for name, (member, _) in kept.items()}
        if len(set(taken.values())) > 1:
            raise UsageError(f"members take images of different numbers of channels: {taken}")
        warm = dict.fromkeys(kept, 1.0) | {name: float(t) for name, t in (temperatures or {}).items() if name in kept}
        if any(not math.isfinite(value) or value <= 0 for value in warm.values()):
            raise UsageError(f"temperatures {warm} must be positive and finite")
        self.members = nn.ModuleDict({name: member for name, (member, _) in kept.items()})
        total = sum(weight for _, weight in kept.values())
        self.weights = {name: weight / total for name, (_, weight) in kept.items()}
        self.combine = combine
        self.task = task or _guess_task(next(iter(channels.values())))
        self.metrics = dict(metrics or {})
        self.temperatures = warm
        self.in_channels = next(iter(taken.values()))
        self.reading = dict(reading or {})

    def member_maps(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Each member's name and activated maps ``(B, K, h, w)``, one after the other, all of one size."""
        size: Size | None = None
        for name, member in self.members.items():
            logits = member(images).float()
            temperature = self.temperatures[name]
            maps = self.task.activation(logits / temperature if temperature != 1 else logits)
            size = size or (int(maps.shape[-2]), int(maps.shape[-1]))
            yield name, resize_maps(maps, size, self.task.target_kind == "density")

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(B, 3, H, W)`` RGB in [0, 1] -> combined activated maps ``(B, K, h, w)``.

        Raises:
            UsageError: the images have another shape.
        """
        rule = COMBINE[self.combine]()
        for name, maps in self.member_maps(images):
            rule.add(maps, self.weights[name])
        return rule.result()

    @torch.no_grad()
    def predict(self, images: Tensor | np.ndarray[Any, Any]) -> Prediction:
        """Combined map with uncertainty for images in memory.

        Args:
            images: tensor ``(B, C, H, W)`` or ``(C, H, W)``; array ``(B, H, W, C)`` or ``(H, W, C)``; uint8, or
                float in [0, 1]; C is 3, RGB, unless the members were made for other channels.

        Raises:
            UsageError: another shape, another type, or float values outside [0, 1].
        """
        batch = as_images(images, self.in_channels).to(next(self.parameters()).device)
        return self.predict_members(batch)

    @torch.no_grad()
    def predict_members(self, batch: Tensor) -> Prediction:
        """:meth:`predict` for a float batch ``(B, 3, H, W)`` that already lies on the ensemble's device."""
        rule = COMBINE[self.combine]()
        running = RunningUncertainty(self.task.distribution)
        for name, maps in self.member_maps(batch):
            rule.add(maps, self.weights[name])
            running.add(maps, self.weights[name])
        mean, expected = rule.result(), running.expected_entropy()
        predictive = entropy(mean, self.task.distribution) if expected is not None else None
        return Prediction(
            mean=mean,
            variance=running.variance(),
            entropy=predictive,
            expected_entropy=expected,
            mutual_information=(predictive - expected).clamp(min=0)
            if predictive is not None and expected is not None
            else None,
            label=mean.argmax(1) if self.task.distribution == "categorical" else None,
        )


def as_images(images: Tensor | np.ndarray[Any, Any], channels: int = 3) -> Tensor:
    """One image or a batch, tensor (channels first) or array (channels last) -> float ``(B, C, H, W)`` in [0, 1].

    Raises:
        UsageError: another shape, another type, or float values outside [0, 1].
    """
    remedy = "convert it to RGB" if channels == 3 else f"give {channels} channels"
    c = channels
    if isinstance(images, np.ndarray):
        array = np.array(images)
        if array.ndim not in (3, 4) or array.shape[-1] != c:
            raise UsageError(f"an array must be (H, W, {c}) or (B, H, W, {c}), got {array.shape}; {remedy}")
        tensor = torch.from_numpy(array).movedim(-1, -3)
    else:
        tensor = images
    if tensor.ndim == 3:
        tensor = tensor[None]
    if tensor.ndim != 4 or tensor.shape[1] != c:
        raise UsageError(f"a tensor must be ({c}, H, W) or (B, {c}, H, W), got {tuple(images.shape)}; {remedy}")
    if tensor.dtype == torch.uint8:
        return tensor.float() / 255
    if not tensor.is_floating_point():
        raise UsageError(f"images must be uint8, or float in [0, 1], got {tensor.dtype}")
    low, high = (float(value) for value in tensor.aminmax()) if tensor.numel() else (0.0, 0.0)
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise UsageError(f"float images must be in [0, 1], got values from {low:g} to {high:g}; divide by 255?")
    return tensor.float()


def _name(members: Sequence[DenseModel]) -> dict[str, DenseModel]:
    named: dict[str, DenseModel] = {}
    for number, member in enumerate(members):
        plain = member.spec.backbone.removeprefix("timm/").replace("/", "-").replace(".", "_")
        named[plain if plain not in named else f"{plain}-{number}"] = member
    return named


def _guess_task(channels: int) -> Task:
    if channels == 1:
        return SaliencyTask()
    return SegmentationTask(tuple(str(k) for k in range(channels)))
