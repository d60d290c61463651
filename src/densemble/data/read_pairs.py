"""Reading: turns files into an image and a target in the terms of the task."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from densemble.data.class_order import NO_CLASS
from densemble.data.color_map import ColourMap
from densemble.data.heat_scale import find_heat_max, heat_max_of, number_type
from densemble.data.layouts import Sample, TargetDrawing
from densemble.data.mask_values import WHITE, MaskValues
from densemble.data.targets import draw_points, resize_target
from densemble.data_options import ReadingOptions
from densemble.errors import DataError
from densemble.metrics.multilabel import IGNORED
from densemble.shapes import Array, Size, format_size, size_of
from densemble.storage import images as codec
from densemble.storage.decoding_memory import require_memory
from densemble.storage.points import POINT_SUFFIXES, is_point_array, read_point_table
from densemble.tasks.task import TargetKind

_LISTED = 5
_DRAWN_BYTES = 9  # a label as int64, and a mask
_COLOURS_AT_ONCE = 1 << 22
_UNKNOWN: dict[TargetKind, float] = {"labels": 255, "masks": 255, "values": np.nan, "pixels": np.nan}
"""Value of unknown pixels; for labels, the ignored label replaces it."""


@dataclass(frozen=True)
class Reading:
    """Describes how the images and targets of a folder are read.

    Attributes:
        kind: kind of the targets.
        planes: whether targets have a channel axis.
        classes: names of the classes, if they are known.
        channels: K of the files; used for points and for targets with an ``order``.
        mask_values: meaning of 255 in each channel of mask files.
        order: channel in the files by class; ``None`` keeps the order of the files.
        ignore_index: label that counts as unknown.
        label_map: class number by label in the files.
        color_map: class number by colour; masks are then read as colours.
        options: all reading options.
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
        """The image ``(H, W, C)``: uint8, uint16, or float32 in the values of the file.

        Raises:
            DataError: the image is unreadable, or has not all the requested bands.
        """
        return self.image_and_validity(sample)[0]

    def image_and_validity(self, sample: Sample) -> tuple[Array, Array | None]:
        """The image, and a bool mask ``(H, W)`` of the pixels that hold data; ``None`` if the files have no such mask.

        Pixels without data get the value that becomes 0.

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
        if sample.bands:  # one file per channel: a grey file is read as three equal channels
            parts = [part[..., :1] if (part[..., :1] == part).all() else part for part in parts]
        image = np.concatenate(parts, axis=2) if len(parts) > 1 else parts[0]
        bands = self.options["bands"]
        if bands is None:
            return image
        if max(bands) >= image.shape[2]:
            raise DataError(
                f"'{sample.image}' has {image.shape[2]} channels, but --set data.bands asks for number {max(bands)}; "
                "use existing ones, counted from 0"
            )
        return image[..., bands]

    def target(self, sample: Sample, image_size: Size | None = None) -> Array:
        """The target in the terms of the task, ``(H, W)`` or ``(K, H, W)``; see ``Task.target_kind``.

        Args:
            image_size: (H, W) of the image, if it is known; drawn targets get this size.

        Raises:
            DataError: the target is unreadable, or has values that the task does not allow.
        """
        target = READERS[self.kind](self, sample, image_size or self._size(sample))
        target = target[None] if self.planes and target.ndim == 2 else target
        if self.order is None:
            return target
        if len(target) != self.channels:
            raise DataError(
                f"map '{sample.target}' has {len(target)} channels, but the data set names {self.channels} classes; "
                "make the map again, or correct the names"
            )
        return target[list(self.order)]

    def pair(self, sample: Sample) -> tuple[Array, Array]:
        """Image and target of the same size; the target is unknown where the image holds no data.

        Raises:
            DataError: a file is unreadable, or the sizes differ.
        """
        image, valid = self.image_and_validity(sample)
        size: Size = (image.shape[0], image.shape[1])
        target = self.fitted(self.target(sample, size), sample, size)
        if size_of(target) != size:
            raise DataError(
                f"'{sample.image}' is {format_size(size)} but its map '{sample.target}' is "
                f"{format_size(size_of(target))} (height x width); they must be equal: make the map again, or resize "
                "maps with --set data.resize_targets=true"
            )
        return image, self.known_where(valid, target)

    def known_target(self, sample: Sample) -> Array:
        """The target as by :meth:`target`, but unknown where the image holds no data.

        Raises:
            DataError: as :meth:`target`, or the image is unreadable.
        """
        return self.known_where(self._validity(sample), self.target(sample))

    def known_where(self, valid: Array | None, target: Array) -> Array:
        """Marks a target as unknown where ``valid`` ``(H, W)`` is false; heat and densities stay unchanged."""
        if valid is None or self.kind not in _UNKNOWN or target.shape[-2:] != valid.shape:
            return target
        unknown = self.ignore_index if self.kind == "labels" else _UNKNOWN[self.kind]
        return np.where(valid, target, target.dtype.type(unknown))

    def fitted(self, target: Array, sample: Sample, size: Size) -> Array:
        """Rotates and resizes a target to the (H, W) of its image, as far as ``exif`` and ``resize_targets`` allow."""
        if self.options["exif"] in ("auto", "both"):
            orientation = self.silent_turn(sample)
            transposed = target.shape[-2:] != size and target.shape[-2:] == (size[1], size[0])
            if orientation != 1 and (self.options["exif"] == "both" or transposed):
                channels_last = np.moveaxis(target, 0, -1) if target.ndim == 3 else target
                channels_last = codec.turned(channels_last, orientation)
                target = np.ascontiguousarray(np.moveaxis(channels_last, -1, 0) if target.ndim == 3 else channels_last)
        if target.shape[-2:] != size and self.options["resize_targets"]:
            target = resize_target(torch.from_numpy(np.ascontiguousarray(target)), size, self.kind).numpy()
        return target

    def silent_turn(self, sample: Sample) -> int:
        """The EXIF orientation of an image whose target is a file without EXIF orientation; else 1."""
        if _is_drawn(sample):
            return 1
        orientation = codec.orientation(sample.image)
        target = sample.planes[0][1] if sample.planes else sample.target
        return orientation if orientation != 1 and codec.orientation(target) == 1 else 1

    def _size(self, sample: Sample) -> Size:
        """(H, W) of the image if the target is drawn at this size, else (0, 0)."""
        if not _is_drawn(sample):
            return 0, 0
        height, width = codec.image_size(sample.image)
        require_memory(sample.image, height * width * _DRAWN_BYTES)
        transposed = self.options["exif"] == "ignore" and codec.orientation(sample.image) >= 5
        return (width, height) if transposed else (height, width)

    def decided(self, samples: Iterable[Sample]) -> "Reading":
        """This reading with the value of heat that becomes 1, which is decided once from all targets of a data set."""
        if self.kind != "heat" or self.options["heat_max"] is not None:
            return self
        files = [sample.target for sample in samples if not is_point_table(sample.target)]
        heat_max = find_heat_max(files, lambda file: _planes_of_values(self, file))
        return replace(self, options={**self.options, "heat_max": heat_max})

    @property
    def turns_files(self) -> bool:
        """Whether the EXIF orientation of a file is applied to this file."""
        return self.options["exif"] != "ignore"


def is_point_table(path: Path) -> bool:
    """Whether a file lists points: a table, or an NPY with two or three columns."""
    if path.suffix.lower() == ".npy":
        return is_point_array(path)
    return path.suffix.lower() in POINT_SUFFIXES


def _is_drawn(sample: Sample) -> bool:
    """Whether the target has no size itself: it is drawn from shapes or points, or all its masks are missing."""
    return sample.drawing is not None or is_point_table(sample.target) or bool(sample.absent and not sample.planes)


def _labels(reading: Reading, sample: Sample, image_size: Size) -> Array:
    if sample.drawing is not None:
        labels = sample.drawing.labels(image_size)
    elif reading.color_map is not None:
        colours = codec.read_colours(sample.target, reading.turns_files)
        labels = _from_colours(colours, reading, sample.target)
    else:
        labels = codec.read_labels(sample.target, reading.turns_files)
    unknown = labels == codec.UNKNOWN
    labels = _mapped(labels, reading.label_map)
    if unknown.any():
        labels = np.where(unknown, reading.ignore_index, labels)
    return _checked(labels, reading, sample.target)


def _from_colours(colours: Array, reading: Reading, path: Path) -> Array:
    assert reading.color_map is not None
    named = sorted((r * 65536 + g * 256 + b, number) for (r, g, b), number in reading.color_map.items())
    known, numbers = np.array(named, np.int64).reshape(-1, 2).T
    labels, unknown = np.empty(colours.shape[:2], np.int64), set()
    for rows in np.array_split(np.arange(len(colours)), max(1, colours.size // _COLOURS_AT_ONCE)):
        packed = pack_colours(colours[rows[0] : rows[-1] + 1])
        indices = np.searchsorted(known, packed).clip(max=len(known) - 1)
        unknown |= set(np.unique(packed[known[indices] != packed]).tolist())
        labels[rows[0] : rows[-1] + 1] = numbers[indices]
    if unknown:
        raise DataError(
            "mask '{}' has colours that the colour map does not name: {}; add them, or save the mask again without "
            "smoothing or JPEG compression".format(path, first_few([f"#{value:06x}" for value in sorted(unknown)]))
        )
    return labels


def pack_colours(colours: Array) -> Array:
    """Colours ``(..., 3)`` as numbers 0xRRGGBB."""
    packed = colours[..., 0].astype(np.int64)
    for channel in (1, 2):
        packed <<= 8
        packed |= colours[..., channel].astype(np.int64)
    return packed


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
            f"map '{path}' has labels {first_few(wrong)} outside the {count} classes "
            f"0..{count - 1}; name more classes, ignore one with --set data.ignore_index={wrong[0]}, or set what it "
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
            f"masks '{sample.target}' hold {first_few(wrong)}; a mask is 0 or 1, and 255 where it is "
            "unknown beside a 1: set what they mean with "
            f"--set data.label_map={{{wrong[0]}: 1}}"
        )
    return masks.astype(np.uint8)


def _with_unknown(masks: Array) -> Array:
    """Replaces NaN by ``UNKNOWN``, as for label maps."""
    if masks.dtype.kind != "f" or not np.isnan(masks).any():
        return masks
    return np.where(np.isnan(masks), float(codec.UNKNOWN), masks)


def _drawn_masks(reading: Reading, sample: Sample, drawing: TargetDrawing, image_size: Size) -> Array:
    """One mask per class with all its regions, including the parts below other regions; 255 for unknown pixels."""
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
    values = _nonnegative(_planes_of_values(reading, sample.target), sample.target)
    peak, full = float(values.max(initial=0)), heat_max_of(reading.options["heat_max"], number_type(sample.target))
    if peak > full:
        raise DataError(
            f"map '{sample.target}' reaches {peak:g}, above {full:g}, which counts as 1; set what counts as 1 in all "
            f"maps with --set data.heat_max={peak}"
        )
    return values / np.float32(full)


def _density(reading: Reading, sample: Sample, image_size: Size) -> Array:
    if is_point_table(sample.target):
        return _drawn(reading, sample, image_size, density=True)
    return _nonnegative(_planes_of_values(reading, sample.target) * np.float32(reading.options["scale"]), sample.target)


def _nonnegative(values: Array, path: Path) -> Array:
    if not np.isfinite(values).all() or values.min(initial=0) < 0:
        raise DataError(f"map '{path}' holds negative or undefined values; save it with values >= 0")
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
"""The function that reads each kind of target."""


def first_few(names: Sequence[object] | Array, count: int = _LISTED) -> str:
    """The first names, and how many more there are."""
    listed = ", ".join(str(name) for name in names[:count])
    return f"{listed} and {len(names) - count} more" if len(names) > count else listed
