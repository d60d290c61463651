"""Read samples of a data folder and draw their targets."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from densemble.data.decoded_cache import resize_image, unit
from densemble.data.folder import FolderData
from densemble.data.layouts import Sample
from densemble.data.targets import resize_target
from densemble.data.transforms import AUGMENT, augment
from densemble.errors import DataError, UsageError, unknown_name
from densemble.inference import drawing
from densemble.inference.drawing import Meaning
from densemble.shapes import Array, Size
from densemble.storage.images import as_unit

_VARIANTS = 3
_IGNORED_OPACITY = 0.65
_VOID = (0, 0, 0)
_BACKDROP = 0.4


@dataclass(frozen=True)
class RawSample:
    """A sample as arrays: image as float32 ``(H, W, C)`` in [0, 1], target ``(H, W)`` or ``(K, H, W)``."""

    title: str
    image: Array
    target: Array


def evenly(samples: Sequence[Sample], count: int) -> list[Sample]:
    """Select ``count`` evenly spread samples, in their order."""
    return [samples[i] for i in np.unique(np.linspace(0, len(samples) - 1, count).round().astype(int))]


def read_samples(data: FolderData, samples: Sequence[Sample]) -> Iterator[RawSample]:
    """Read samples without resizing or augmentation.

    Raises:
        DataError: a file cannot be used.
    """
    for sample in samples:
        image, target = data.read_pair(sample)
        yield RawSample(sample.stem, as_unit(image, data.reading.options["image_range"]), target)


def read_usable(data: FolderData, samples: Sequence[Sample]) -> Iterator[RawSample]:
    """Read samples and skip those with unusable files."""
    for sample in samples:
        try:
            yield from read_samples(data, [sample])
        except DataError:
            continue


def augmented_samples(
    data: FolderData, samples: Sequence[Sample], augmentation: str, size: Size, seed: int = 0
) -> Iterator[RawSample]:
    """Read each sample, followed by three augmented variants as in training.

    Args:
        data: the data folder.
        samples: samples of the folder.
        augmentation: name in ``AUGMENT``.
        size: (H, W) of the augmented variants.
        seed: random seed.

    Raises:
        DataError: a file cannot be used.
        UsageError: the augmentation does not exist.
    """
    if augmentation not in AUGMENT:
        raise UsageError(unknown_name("augmentation", augmentation, AUGMENT))
    kind, fill = data.kind, data.task.fill
    for index, sample in enumerate(samples):
        image, target = data.read_pair(sample)
        unit_image = as_unit(image, data.reading.options["image_range"])
        yield RawSample(sample.stem, unit_image, target)
        small_image = unit(resize_image(image if image.dtype.kind == "u" else unit_image, size).numpy())
        small_target = resize_target(torch.from_numpy(np.ascontiguousarray(target)), size, kind)
        for epoch in range(_VARIANTS):
            seeds = (seed, epoch, index)
            new_image, new_target = augment(small_image, small_target, AUGMENT[augmentation], seeds, kind, fill)
            title = f"{augmentation}, epoch {epoch + 1}"
            yield RawSample(title, new_image.permute(1, 2, 0).numpy(), new_target.numpy())


class SamplePainter:
    """Draws the targets of one data folder, all in the same colours and on the same scale.

    Args:
        data: the data folder.
        raw: samples to draw; the colour scale of values covers their 1st to 99th percentile.
    """

    def __init__(self, data: FolderData, raw: Sequence[RawSample]) -> None:
        self.kind = data.kind
        self.ignored = data.ignore_index
        self.names = data.classes
        self.invalid_below = data.invalid_below
        self._task_name, self._unit = data.task_name, str(data.options["unit"])
        self.shown_classes = sorted({label for sample in raw for label in self._labels(sample.target)})
        self.range = self._range(raw) if self.kind == "values" else None

    def draw(self, raw: RawSample) -> tuple[Array, Array]:
        """Draw image and target of a sample, both as uint8 ``(H, W, 3)``."""
        image = drawing.as_rgb(raw.image)
        return image, self._target(image, raw.target)

    def legend(self) -> list[tuple[str, tuple[int, int, int]]]:
        """Names and RGB colours of the classes that occur in the samples."""
        count = max(self.shown_classes, default=-1) + 1
        colours = drawing.class_colours([self._name(label) for label in range(count)])
        classes = [(self._name(i), (int(r), int(g), int(b))) for i in self.shown_classes for r, g, b in [colours[i]]]
        return [*classes, (f"ignored ({self.ignored})", _VOID)] if self.kind == "labels" else classes

    def _name(self, label: int) -> str:
        return self.names[label] if self.names and label < len(self.names) else str(label)

    def _labels(self, target: Array) -> list[int]:
        if self.kind == "labels":
            return [int(label) for label in np.unique(target) if label != self.ignored and label >= 0]
        has_classes = target.ndim == 3 and len(target) > 1 and self.kind != "pixels"
        return list(range(len(target))) if has_classes else []

    def _range(self, raw: Sequence[RawSample]) -> tuple[float, float]:
        values = [sample.target[self._valid(sample.target)] for sample in raw]
        return drawing.value_range(np.concatenate(values) if values else np.zeros(0))

    def _valid(self, target: Array) -> Array:
        valid: Array = np.isfinite(target)
        return valid if self.invalid_below is None else valid & (target > self.invalid_below)

    def _target(self, image: Array, target: Array) -> Array:
        match self.kind:
            case "labels":
                known = target != self.ignored
                labels = np.where(known & (target >= 0), target, 0).astype(np.int64)
                meaning = self._meaning(max(len(self.names or ()), int(labels.max(initial=0)) + 1))
                drawn = drawing.draw_overlay(image, labels[None], meaning, labels, known).pixels
                return drawing.blend(drawn, np.zeros_like(drawn), np.where(known, 0.0, _IGNORED_OPACITY))
            case "values":
                valid = self._valid(target)
                drawn = drawing.draw_view(np.where(valid, target, 0)[None], self._meaning(0), limits=self.range).pixels
                drawn[~valid] = _VOID
                return drawn
            case "pixels":
                return drawing.as_rgb(np.nan_to_num(np.moveaxis(target, 0, -1)))
            case "masks":
                return self._channels(image, np.where(target == 1, 1.0, 0.0))
            case _:
                planes = target if target.ndim == 3 else target[None]
                if len(planes) > 1:
                    return self._channels(image, planes / max(float(planes.max(initial=0)), 1e-12))
                return drawing.draw_overlay(image, planes, self._meaning(0)).pixels

    def _channels(self, image: Array, planes: Array) -> Array:
        dark = drawing.blend(image, np.zeros_like(image), _BACKDROP)
        return drawing.draw_overlay(dark, planes, replace(self._meaning(len(planes)), kind="masks")).pixels

    def _meaning(self, classes: int) -> Meaning:
        names = tuple(self._name(label) for label in range(classes))
        return Meaning(self.kind, "none", self._task_name, names, self._unit)
