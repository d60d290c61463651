"""Samples as images: each with its map drawn, in the colours of its kind."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from densemble.data.decoded_cache import resize_image, unit
from densemble.data.folder import FolderData
from densemble.data.layouts import Sample
from densemble.data.targets import resize_target
from densemble.data.transforms import AUGMENT, augment
from densemble.errors import DataError, UsageError
from densemble.inference import drawing
from densemble.shapes import Array, Size
from densemble.storage.images import as_unit

_VARIANTS = 3
_OPACITY = 0.65
_VOID = (0, 0, 0)
_BACKDROP = 0.4


@dataclass(frozen=True)
class RawSample:
    """A sample as arrays: image float32 ``(H, W, C)`` in [0, 1], map ``(H, W)`` or ``(K, H, W)``."""

    title: str
    image: Array
    target: Array


@dataclass(frozen=True)
class DrawnSample:
    """A sample to look at: both uint8 ``(H, W, 3)``."""

    title: str
    image: Array
    target: Array


def evenly(samples: Sequence[Sample], count: int) -> list[Sample]:
    """``count`` of the samples, evenly spread, in their order."""
    return [samples[i] for i in np.unique(np.linspace(0, len(samples) - 1, count).round().astype(int))]


def read_samples(data: FolderData, samples: Sequence[Sample]) -> Iterator[RawSample]:
    """Samples as they are.

    Raises:
        DataError: files that cannot be used.
    """
    for sample in samples:
        image, target = data.read_pair(sample)
        yield RawSample(sample.stem, as_unit(image, data.reading.options["image_range"]), target)


def read_usable(data: FolderData, samples: Sequence[Sample]) -> Iterator[RawSample]:
    """Those of the samples that can be read."""
    for sample in samples:
        try:
            yield from read_samples(data, [sample])
        except DataError:
            continue


def augmented_samples(
    data: FolderData, samples: Sequence[Sample], how: str, size: Size, seed: int = 0
) -> Iterator[RawSample]:
    """Each sample as it is, and three times as training will see it.

    Args:
        data: the folder.
        samples: of it.
        how: row of ``AUGMENT``.
        size: (H, W) of the network's input.
        seed: of the changes.

    Raises:
        DataError: files that cannot be used.
        UsageError: no such augmentation.
    """
    if how not in AUGMENT:
        raise UsageError(f"no augmentation is named '{how}'; there are: {', '.join(AUGMENT)}")
    kind, fill = data.kind, data.task.fill
    for index, sample in enumerate(samples):
        image, target = data.read_pair(sample)
        whole = as_unit(image, data.reading.options["image_range"])
        yield RawSample(sample.stem, whole, target)
        small = unit(resize_image(image if image.dtype.kind == "u" else whole, size).numpy())
        placed = resize_target(torch.from_numpy(np.ascontiguousarray(target)), size, kind)
        for epoch in range(_VARIANTS):
            changed, moved = augment(small, placed, AUGMENT[how], (seed, epoch, index), kind, fill)
            yield RawSample(f"{how}, epoch {epoch + 1}", changed.permute(1, 2, 0).numpy(), moved.numpy())


class SamplePainter:
    """Draws the maps of one folder, all in the same colours and on the same scale.

    Args:
        data: the folder.
        raw: samples that are to be drawn; values are drawn from their 1st to their 99th percentile.
    """

    def __init__(self, data: FolderData, raw: Sequence[RawSample]) -> None:
        self.kind = data.kind
        self.ignored = data.ignore_index
        self.names = data.classes
        self.shown = sorted({label for one in raw for label in self._labels(one.target)})
        self.range = self._range(data, raw) if self.kind == "values" else None
        self.invalid_below = data.invalid_below

    def draw(self, raw: RawSample) -> DrawnSample:
        """The sample with its map, over the image where that shows more."""
        image = drawing.as_rgb(raw.image)
        return DrawnSample(raw.title, image, self._target(image, raw.target))

    def legend(self) -> list[tuple[str, tuple[int, int, int]]]:
        """Names and colours of the classes that occur in the samples."""
        colours = drawing.palette(max(self.shown, default=-1) + 1)
        named = [(self._name(i), (int(r), int(g), int(b))) for i in self.shown for r, g, b in [colours[i]]]
        return [*named, (f"ignored ({self.ignored})", _VOID)] if self.kind == "labels" else named

    def _name(self, number: int) -> str:
        return self.names[number] if self.names and number < len(self.names) else str(number)

    def _labels(self, target: Array) -> list[int]:
        if self.kind == "labels":
            return [int(label) for label in np.unique(target) if label != self.ignored and label >= 0]
        several = target.ndim == 3 and len(target) > 1 and self.kind != "pixels"
        return list(range(len(target))) if several else []

    def _range(self, data: FolderData, raw: Sequence[RawSample]) -> tuple[float, float]:
        values = [one.target[self._valid(one.target, data.invalid_below)] for one in raw]
        return drawing.value_range(np.concatenate(values) if values else np.zeros(0))

    @staticmethod
    def _valid(target: Array, invalid_below: float | None) -> Array:
        valid: Array = np.isfinite(target)
        return valid if invalid_below is None else valid & (target > invalid_below)

    def _target(self, image: Array, target: Array) -> Array:
        match self.kind:
            case "labels":
                known = np.where((target == self.ignored) | (target < 0), 0, target).astype(np.int64)
                shown = drawing.colour_labels(known, int(known.max(initial=0)) + 1)
                shown[target == self.ignored] = _VOID
                return drawing.blend(image, shown, _OPACITY)
            case "values":
                assert self.range is not None
                valid = self._valid(target, self.invalid_below)
                shown = drawing.colour_values(np.where(valid, target, 0), *self.range)
                shown[~valid] = _VOID
                return shown
            case "pixels":
                return drawing.as_rgb(np.nan_to_num(np.moveaxis(target, 0, -1)))
            case "masks":
                return self._channels(image, np.where(target == 1, 1.0, 0.0))
            case _:
                planes = target if target.ndim == 3 else target[None]
                peak = max(float(planes.max(initial=0)), 1e-12)
                if len(planes) > 1:
                    return self._channels(image, planes / peak)
                return drawing.heat_overlay(image, planes[0])

    def _channels(self, image: Array, planes: Array) -> Array:
        dark = drawing.blend(image, np.zeros_like(image), _BACKDROP)
        return drawing.blend(dark, *drawing.colour_masks(planes))
