"""Reading: how files become an image and a map in the task's terms."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from densemble.data.class_order import NO_CLASS
from densemble.data.color_map import ColourMap
from densemble.data.heat_scale import find_heat_max, heat_max_of, number_type
from densemble.data.layouts import Drawing, Sample
from densemble.data.mask_values import WHITE, MaskValues
from densemble.data.targets import draw_points, resize_target
from densemble.data_options import ReadingOptions
from densemble.errors import DataError
from densemble.metrics.multilabel import IGNORED
from densemble.shapes import Array, Size
from densemble.storage import images as codec
from densemble.storage.points import POINT_SUFFIXES, is_point_array, read_point_table
from densemble.tasks.task import TargetKind

_SHOWN = 5
_UNKNOWN: dict[TargetKind, float] = {"labels": 255, "masks": 255, "values": np.nan, "pixels": np.nan}
"""What stands for unknown pixels; of labels the ignored one."""


@dataclass(frozen=True)
class Reading:
    """How the images and maps of a folder are read.

    Attributes:
        kind: of the maps.
        planes: whether maps have a channel axis.
        classes: names, where they are known.
        channels: K of the files: of point maps, and of all maps with an ``order``.
        mask_values: what 255 means in each channel of mask files.
        order: channel in the files of each class; ``None``: as they are.
        ignore_index: label that counts as unknown.
        label_map: label in the files -> class number.
        color_map: colour of a mask -> class number; masks are then read as colours.
        options: data options about reading, complete.
    """

    kind: TargetKind
    planes: bool
    classes: tuple[str, ...] | None
    channels: int
    ignore_index: int
    label_map: dict[int, int] | None
    mask_values: MaskValues
    order: tuple[int, ...] | None
    color_map: ColourMap | None
    options: ReadingOptions

    def image(self, sample: Sample) -> Array:
        """The image ``(H, W, C)``: uint8, uint16, or float32 in the file's own values.

        Raises:
            DataError: unreadable, or without one of the bands.
        """
        return self.image_and_validity(sample)[0]

    def image_and_validity(self, sample: Sample) -> tuple[Array, Array | None]:
        """The image, and where its files hold data, bool ``(H, W)``; ``None`` where they say nothing of it.

        Where they hold none, the image holds what becomes 0.

        Raises:
            DataError: as :meth:`image`.
        """
        image, valid = self._stored_image(sample), self._validity(sample)
        return codec.filled(image, valid, self.options["image_range"]), valid

    def _validity(self, sample: Sample) -> Array | None:
        valid = None
        for path in (sample.image, *sample.bands):
            valid = codec.intersect_masks(valid, codec.read_validity(path, self.turns_files))
        return valid

    def _stored_image(self, sample: Sample) -> Array:
        parts = [codec.read_image(path, self.turns_files) for path in (sample.image, *sample.bands)]
        if len({part.shape[:2] for part in parts}) > 1:
            raise DataError(f"the channels of '{sample.image}' have unequal sizes; make them again")
        if sample.bands:  # one file per channel: a grey file was read as three equal ones
            parts = [part[..., :1] if (part[..., :1] == part).all() else part for part in parts]
        image = np.concatenate(parts, axis=2) if len(parts) > 1 else parts[0]
        bands = self.options["bands"]
        if bands is None:
            return image
        if max(bands) >= image.shape[2]:
            raise DataError(
                f"'{sample.image}' has {image.shape[2]} channels, --set data.bands asks for number {max(bands)}; "
                "they are counted from 0"
            )
        return image[..., bands]

    def target(self, sample: Sample, image_size: Size | None = None) -> Array:
        """The map in the task's terms, ``(H, W)`` or ``(K, H, W)``; see ``Task.target_kind``.

        Args:
            image_size: (H, W) of the sample's image, where it is known: maps without a size of their own get it.

        Raises:
            DataError: unreadable, or values that the task does not have.
        """
        target = READERS[self.kind](self, sample, image_size or self._size(sample))
        target = target[None] if self.planes and target.ndim == 2 else target
        if self.order is None:
            return target
        if len(target) != self.channels:
            raise DataError(
                f"map '{sample.target}' has {len(target)} channels, the data set names {self.channels} classes; make "
                "the map again, or correct the names"
            )
        return target[list(self.order)]

    def pair(self, sample: Sample) -> tuple[Array, Array]:
        """Image and map, of equal height and width; the map is unknown where the image holds no data.

        Raises:
            DataError: unreadable, or of unequal sizes.
        """
        image, valid = self.image_and_validity(sample)
        size: Size = (image.shape[0], image.shape[1])
        target = self.fitted(self.target(sample, size), sample, size)
        if target.shape[-2:] != size:
            raise DataError(
                f"'{sample.image}' is {size[0]}x{size[1]} but its map '{sample.target}' is "
                f"{target.shape[-2]}x{target.shape[-1]} (height x width); they must be equal: make the map again, or "
                "resize maps with --set data.resize_targets=true"
            )
        return image, self.known_where(valid, target)

    def known_target(self, sample: Sample) -> Array:
        """A map as :meth:`target` gives it, unknown where its image holds no data.

        Raises:
            DataError: as :meth:`target`, or an unreadable image.
        """
        return self.known_where(self._validity(sample), self.target(sample))

    def known_where(self, valid: Array | None, target: Array) -> Array:
        """A map that is unknown where its image ``(H, W)`` holds no data; heat and densities stay as they are."""
        if valid is None or self.kind not in _UNKNOWN or target.shape[-2:] != valid.shape:
            return target
        unknown = self.ignore_index if self.kind == "labels" else _UNKNOWN[self.kind]
        return np.where(valid, target, target.dtype.type(unknown))

    def fitted(self, target: Array, sample: Sample, size: Size) -> Array:
        """A map as ``exif`` and ``resize_targets`` bring it to its image's (H, W), as far as they do."""
        if self.options["exif"] in ("auto", "both"):
            orientation = self.silent_turn(sample)
            transposed = target.shape[-2:] != size and target.shape[-2:] == (size[1], size[0])
            if orientation != 1 and (self.options["exif"] == "both" or transposed):
                last = np.moveaxis(target, 0, -1) if target.ndim == 3 else target
                last = codec.turned(last, orientation)
                target = np.ascontiguousarray(np.moveaxis(last, -1, 0) if target.ndim == 3 else last)
        if target.shape[-2:] != size and self.options["resize_targets"]:
            target = resize_target(torch.from_numpy(np.ascontiguousarray(target)), size, self.kind).numpy()
        return target

    def silent_turn(self, sample: Sample) -> int:
        """The EXIF orientation of an image whose map is a file that says nothing of one itself; else 1."""
        if sample.drawing is not None or is_point_table(sample.target) or (sample.absent and not sample.planes):
            return 1
        orientation = codec.orientation(sample.image)
        target = sample.planes[0][1] if sample.planes else sample.target
        return orientation if orientation != 1 and codec.orientation(target) == 1 else 1

    def _size(self, sample: Sample) -> Size:
        """(H, W) of the image, where the map has no size of its own."""
        if sample.drawing is None and not is_point_table(sample.target) and (sample.planes or not sample.absent):
            return 0, 0
        height, width = codec.image_size(sample.image)
        lying = self.options["exif"] == "ignore" and codec.orientation(sample.image) >= 5
        return (width, height) if lying else (height, width)

    def decided(self, samples: Iterable[Sample]) -> "Reading":
        """The same with what has to be decided once from all maps of a data set: which value of heat becomes 1."""
        if self.kind != "heat" or self.options["heat_max"] is not None:
            return self
        files = [sample.target for sample in samples if not is_point_table(sample.target)]
        heat_max = find_heat_max(files, lambda file: _planes_of_values(self, file))
        return replace(self, options={**self.options, "heat_max": heat_max})

    @property
    def turns_files(self) -> bool:
        """Whether a file's own EXIF orientation is applied to it."""
        return self.options["exif"] != "ignore"


def is_point_table(path: Path) -> bool:
    """Whether a file lists points: a table does, and an NPY of two or three columns."""
    if path.suffix.lower() == ".npy":
        return is_point_array(path)
    return path.suffix.lower() in POINT_SUFFIXES


def _labels(reading: Reading, sample: Sample, image_size: Size) -> Array:
    if sample.drawing is not None:
        labels = sample.drawing.labels(image_size)
    elif reading.color_map is not None:
        colours = codec.read_colours(sample.target, reading.turns_files)
        labels = _from_colours(colours, reading, sample.target)
    else:
        labels = codec.read_labels(sample.target, reading.turns_files)
    mapped = _mapped(labels, reading.label_map)
    return _checked(np.where(labels == codec.UNKNOWN, reading.ignore_index, mapped), reading, sample.target)


def _from_colours(colours: Array, reading: Reading, path: Path) -> Array:
    assert reading.color_map is not None
    packed = colours.astype(np.int64) @ np.array([65536, 256, 1])
    known = {r * 65536 + g * 256 + b: number for (r, g, b), number in reading.color_map.items()}
    found, places = np.unique(packed, return_inverse=True)
    strange = [value for value in found.tolist() if value not in known]
    if strange:
        shown = some([f"#{value:06x}" for value in strange])
        raise DataError(
            f"mask '{path}' has colours that the colour map does not name: {shown}; add them, or save the mask again "
            "without smoothing or JPEG compression"
        )
    numbers = np.array([known[value] for value in found.tolist()], np.int64)
    return numbers[places].reshape(packed.shape)


def _mapped(labels: Array, label_map: dict[int, int] | None) -> Array:
    if not label_map:
        return labels
    mapped = labels.copy()
    for old, new in label_map.items():
        mapped[labels == old] = new
    return mapped


def _checked(labels: Array, reading: Reading, path: Path) -> Array:
    if reading.classes is None:
        return labels
    count = len(reading.classes)
    wrong = np.unique(labels[((labels < 0) | (labels >= count)) & (labels != reading.ignore_index)])
    if wrong.size:
        raise DataError(
            f"map '{path}' has labels {some([str(value) for value in wrong])} outside the {count} classes "
            f"0..{count - 1}; name more classes, ignore one with --set data.ignore_index={wrong[0]}, or say what it "
            f"means with --set data.label_map={{{wrong[0]}: CLASS}}"
        )
    return labels


def _masks(reading: Reading, sample: Sample, image_size: Size) -> Array:
    if sample.drawing is not None:
        return _drawn_masks(reading, sample, sample.drawing, image_size)
    if sample.plane_names:
        planes = {name: codec.read_labels(path, reading.turns_files) for name, path in sample.planes}
        sizes = {plane.shape for plane in planes.values()} or {image_size}
        if len(sizes) > 1:
            raise DataError(f"the masks of '{sample.stem}' in '{sample.target}' have unequal sizes; make them again")
        planes |= {name: np.zeros(next(iter(sizes)), np.int64) for name in sample.absent}
        masks = np.stack([planes[name] for name in sample.plane_names])
    else:
        masks = _with_unknown(np.moveaxis(codec.read_planes(sample.target, reading.turns_files), -1, 0))
    unknown = masks == codec.UNKNOWN
    if reading.label_map:
        masks = _mapped(masks.astype(np.int64), reading.label_map)
    else:
        white = np.isin(np.arange(len(masks)), list(reading.mask_values.white))[:, None, None]
        masks = np.where(white & (masks == WHITE), 1, masks)
    masks = np.where(unknown, IGNORED, masks)
    wrong = np.unique(masks[(masks != 0) & (masks != 1) & (masks != 255)])
    if wrong.size:
        raise DataError(
            f"masks '{sample.target}' hold {some([str(value) for value in wrong])}; a mask is 0 or 1, 255 where it is "
            "unknown beside a 1: say what they mean with "
            f"--set data.label_map={{{wrong[0]}: 1}}"
        )
    return masks.astype(np.uint8)


def _with_unknown(masks: Array) -> Array:
    """Floats as labels are read: NaN is ``UNKNOWN``."""
    if masks.dtype.kind != "f" or not np.isnan(masks).any():
        return masks
    return np.where(np.isnan(masks), float(codec.UNKNOWN), masks)


def _drawn_masks(reading: Reading, sample: Sample, drawing: Drawing, image_size: Size) -> Array:
    """Each class with its whole regions, also where others lie above them; 255 where it is unknown what is there."""
    masks = np.zeros((len(reading.classes or ()), *image_size), np.uint8)
    unknown = np.zeros(image_size, bool)
    for label, region in drawing.regions(image_size):
        number = (reading.label_map or {}).get(label, label)
        if 0 <= number < len(masks):
            masks[number][region] = 1
        elif number == reading.ignore_index:
            unknown |= region
        elif number != NO_CLASS and region.any():
            _checked(np.array([number]), reading, sample.target)
    masks[:, unknown] = np.where(masks[:, unknown] == 1, 1, IGNORED)
    return masks


def _heat(reading: Reading, sample: Sample, image_size: Size) -> Array:
    if is_point_table(sample.target):
        return _drawn(reading, sample, image_size, density=False)
    values = _planes_of_values(reading, sample.target)
    if not np.isfinite(values).all() or values.min(initial=0) < 0:
        raise DataError(f"map '{sample.target}' holds negative or undefined values; save densities >= 0")
    peak, full = float(values.max(initial=0)), heat_max_of(reading.options["heat_max"], number_type(sample.target))
    if peak > full:
        raise DataError(
            f"map '{sample.target}' reaches {peak:g}, above {full:g}, which counts as 1; say what counts as 1 in all "
            f"maps with --set data.heat_max={peak}"
        )
    return values / np.float32(full)


def _density(reading: Reading, sample: Sample, image_size: Size) -> Array:
    if is_point_table(sample.target):
        return _drawn(reading, sample, image_size, density=True)
    values = _planes_of_values(reading, sample.target) * np.float32(reading.options["scale"])
    if not np.isfinite(values).all() or values.min(initial=0) < 0:
        raise DataError(f"density '{sample.target}' holds negative or undefined values; its sum must be a count")
    return values


def _planes_of_values(reading: Reading, target: Path) -> Array:
    if not reading.planes:
        return codec.read_values(target, reading.turns_files)
    return np.moveaxis(codec.read_planes(target, reading.turns_files), -1, 0).astype(np.float32)


def _drawn(reading: Reading, sample: Sample, image_size: Size, density: bool) -> Array:
    points, labels = read_point_table(sample.target)
    if len(labels) and (labels.min() < 0 or labels.max() >= reading.channels):
        raise DataError(
            f"points '{sample.target}' have label {labels.max()}, outside the {reading.channels} channels; name more "
            "with --set data.classes=[...]"
        )
    sigma = max(reading.options["sigma"] * float(np.hypot(*image_size)), 0.5)
    return draw_points(points, labels, reading.channels, image_size, sigma, density)


def _values(reading: Reading, sample: Sample, image_size: Size) -> Array:
    return codec.read_values(sample.target, reading.turns_files) * np.float32(reading.options["scale"])


def _pixels(reading: Reading, sample: Sample, image_size: Size) -> Array:
    image = codec.read_image(sample.target, reading.turns_files)
    unknown = np.isnan(image) if image.dtype.kind == "f" else np.zeros(image.shape, bool)
    valid = codec.read_validity(sample.target, reading.turns_files)
    unknown = unknown if valid is None else unknown | ~valid[..., None]
    pixels = codec.as_unit(np.where(unknown, image.dtype.type(0), image), reading.options["image_range"])
    pixels = np.where(unknown, np.float32(np.nan), pixels)
    grey = reading.channels == 1 and (pixels[..., :1] == pixels).all()
    return np.moveaxis(pixels[..., :1] if grey else pixels, -1, 0)


READERS: dict[TargetKind, Callable[[Reading, Sample, Size], Array]] = {
    "labels": _labels,
    "masks": _masks,
    "heat": _heat,
    "density": _density,
    "values": _values,
    "pixels": _pixels,
}
"""How each kind of map is read."""


def some(names: list[str]) -> str:
    """The first names and how many more there are."""
    shown = ", ".join(names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown
