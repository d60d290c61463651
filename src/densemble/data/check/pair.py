"""Checks one pair: reads image, target and fixations, measures them, and reports their problems."""

import hashlib
import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from densemble.data.check.likeness import thumbnail
from densemble.data.check.maps import measure_target, target_files
from densemble.data.check.problems import Problem, Severity, leaving_out, message_and_remedy
from densemble.data.check.refused import explain_damage, explain_target
from densemble.data.check.seen import CheckedPair, ImageFacts
from densemble.data.check.subject import Checkable
from densemble.data.layouts import Sample
from densemble.data.read_pairs import is_point_table
from densemble.errors import DataError
from densemble.shapes import Array, Size, format_size, size_of
from densemble.storage import images as codec

_SMALL = 32
_OBLONG = 4
_MEASURED_PIXELS = 1 << 16
_SAME_SHAPE = 0.02


def check_pair(data: Checkable, split: str, sample: Sample, name: str, kept: int) -> CheckedPair:
    """Reads one pair and collects its facts and problems.

    ``name`` is unique in the folder; ``kept`` is the number of values of the target to keep.
    """
    pair = CheckedPair(split, sample, name)
    image, valid = _check_image(pair, data)
    target = _check_target(pair, data, None if image is None else (image.shape[0], image.shape[1]), valid, kept)
    if image is not None and target is not None and data.reading.kind == "pixels":
        _compare(pair, image, target, data)
    if sample.points is not None:
        pair.has_fixations = True
        pair.problems += _check_fixations(pair, sample.points)
    return pair


def _check_image(pair: CheckedPair, data: Checkable) -> tuple[Array | None, Array | None]:
    """The image ``(H, W, C)``, and the pixels that hold data ``(H, W)``; ``None`` if it is unreadable."""
    sample = pair.sample
    kind = "unusable image"
    try:
        image, valid = data.reading.image_and_validity(sample)
        kind = "image values"
        unit = _unit_pixels(image, data, valid)
    except DataError as error:
        damaged = None
        if isinstance(error, codec.SeveralImages):
            kind = "several pages"
        elif kind == "unusable image":
            damaged = next((path for path in (sample.image, *sample.bands) if not _decodes(path)), None)
        explained = pair.problem(kind, sample.image, *message_and_remedy(error))
        pair.problems.append(explained if damaged is None else explain_damage(pair, damaged, error))
        return None, None
    known = image.reshape(-1, image.shape[2]) if valid is None else image[valid]
    pair.image = ImageFacts(
        size=(image.shape[0], image.shape[1]),
        channels=image.shape[2],
        depth=str(image.dtype),
        pixels=unit.shape[0],
        sums=np.einsum("nc->c", unit),
        squares=np.einsum("nc,nc->c", unit, unit),
        digest=hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest() + str(image.shape).encode(),
        thumbnail=thumbnail(_uint8_or_unit(image, data)),
        constant=bool(len(known) and np.array_equal(known.min(axis=0), known.max(axis=0))),
        highest=float(known.max(initial=0)),
        known=len(known) / (image.shape[0] * image.shape[1]),
    )
    _judge_image(pair, pair.image)
    return image, valid


def _decodes(path: Path) -> bool:
    try:
        codec.read_image(path)
    except DataError:
        return False
    return True


def _unit_pixels(image: Array, data: Checkable, valid: Array | None) -> Array:
    """An evenly spaced sample of the pixels that hold data, float64 ``(N, C)`` in [0, 1].

    Raises:
        DataError: a value is outside [0, 1]. Of floats, all values are checked, not only the sample.
    """
    stride = max(1, math.isqrt(image.shape[0] * image.shape[1] // _MEASURED_PIXELS))
    image_range = data.reading.options["image_range"]
    if image.dtype.kind == "f":
        codec.as_unit(image, image_range)
    sampled = codec.as_unit(np.ascontiguousarray(image[::stride, ::stride]), image_range)
    known = sampled.reshape(-1, image.shape[2]) if valid is None else sampled[valid[::stride, ::stride]]
    return known.astype(np.float64)


def _uint8_or_unit(image: Array, data: Checkable) -> Array:
    """The image unchanged if it is uint8, else in [0, 1]."""
    return image if image.dtype == np.uint8 else codec.as_unit(image, data.reading.options["image_range"])


def _judge_image(pair: CheckedPair, image: ImageFacts) -> None:
    size, path = format_size(image.size), pair.sample.image
    leave_out = f"leave it out: {leaving_out(pair.name)}"

    def report(kind: str, message: str, remedy: str, severity: Severity = "warning") -> None:
        pair.problems.append(pair.problem(kind, path, message, remedy, severity))

    if not image.known:
        report("empty image", f"'{path}' holds no data anywhere", leave_out, "error")
    if image.constant:
        report("constant image", f"'{path}' is one colour everywhere", leave_out, "error")
    if min(image.size) < _SMALL:
        report("small image", f"'{path}' is {size}, below {_SMALL} pixels", leave_out)
    if max(image.size) > _OBLONG * min(image.size):
        message = f"'{path}' is {size}: one side is more than {_OBLONG} times the other; all images become one size"
        report("oblong image", message, f"cut it into pieces, or {leave_out}")


def _check_target(
    pair: CheckedPair, data: Checkable, size: Size | None, valid: Array | None, kept: int
) -> Array | None:
    """The target, if it can be read and fits the image of ``size``; ``size`` is ``None`` for an unreadable image."""
    sample, reading = pair.sample, data.reading
    if size is None and (sample.drawing is not None or is_point_table(sample.target)):
        return None  # it is drawn at the size of its image
    try:
        target = replace(reading, classes=None).target(sample, size or (1, 1))
        if size is not None:
            _judge_orientation(pair, data, target, size)
            target = reading.known_where(valid, reading.fitted(target, sample, size))
    except DataError as error:
        pair.problems.append(explain_target(pair, data, error))
        return None
    pair.target = measure_target(pair, target, data, kept)
    if size is not None and target.shape[-2:] != size:
        pair.problems.append(_unequal(pair, data, size_of(target), size))
        return None
    return target


def _judge_orientation(pair: CheckedPair, data: Checkable, target: Array, size: Size) -> None:
    """Warns if EXIF rotates the image and the target fits both orientations."""
    if data.reading.options["exif"] != "auto" or target.shape[-2:] != size:
        return
    orientation = data.reading.silent_turn(pair.sample)
    if orientation == 1 or (orientation >= 5 and size[0] != size[1]):
        return
    path = pair.sample.image
    message = (
        f"the EXIF orientation of '{path}' is {orientation}: it is rotated, its map is not, and both orientations fit"
    )
    remedy = (
        "look at `densemble data show`; if maps are upright: --set data.exif=image, "
        "if they are rotated like the stored pixels: --set data.exif=both"
    )
    pair.problems.append(pair.problem("ambiguous orientation", path, message, remedy, "warning"))


def _unequal(pair: CheckedPair, data: Checkable, target_size: Size, size: Size) -> Problem:
    sample = pair.sample
    height, width = target_size
    message = (
        f"'{sample.image}' is {format_size(size)} but its map '{sample.target}' is {format_size(target_size)} "
        "(height x width)"
    )
    make_again = f"make the map again, or leave the pair out: {leaving_out(pair.name)}"
    stretch = abs(math.log(height * size[1] / (width * size[0])))
    if (height, width) == (size[1], size[0]):
        rotated = data.reading.silent_turn(sample) != 1 or data.reading.options["exif"] == "ignore"
        remedy = "rotate the map by its image's EXIF orientation: --set data.exif=auto" if rotated else make_again
        message += "; one of them is rotated by a quarter turn"
    elif stretch < _SAME_SHAPE:
        remedy = "resize the maps to their images: --set data.resize_targets=true"
    else:
        remedy = f"{make_again}; --set data.resize_targets=true would stretch it, because it has another aspect ratio"
    return pair.problem("unequal sizes", target_files(pair)[0], message, remedy)


def _compare(pair: CheckedPair, image: Array, target: Array, data: Checkable) -> None:
    pixels = np.moveaxis(_uint8_or_unit(image, data).astype(np.float32), -1, 0)
    pixels = pixels / np.float32(255) if image.dtype == np.uint8 else pixels
    if pixels.shape == target.shape and np.allclose(pixels, target, atol=1e-6):
        file = pair.sample.target
        message = f"'{file}' equals its image '{pair.sample.image}': there is nothing to learn"
        remedy = f"check which file is which, or leave the pair out: {leaving_out(pair.name)}"
        pair.problems.append(pair.problem("target is its image", file, message, remedy, "warning"))


def _check_fixations(pair: CheckedPair, path: Path) -> list[Problem]:
    remedy = f"make it again, or remove '{path}': then the pair is scored without fixations"
    try:
        points = codec.read_points(path)
    except DataError as error:
        return [replace(explain_damage(pair, path, error), remedy=remedy)]
    if pair.image is not None and points.shape != pair.image.size:
        sizes = f"{format_size(size_of(points))}, the image is {format_size(pair.image.size)}"
        return [pair.problem("fixations", path, f"fixations '{path}' are {sizes}", remedy)]
    if not points.any():
        return [pair.problem("fixations", path, f"fixations '{path}' hold no point", remedy)]
    return []
