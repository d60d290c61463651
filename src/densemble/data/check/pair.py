"""One pair: image, map and fixations are read, summed up, and what is wrong with them is found."""

import hashlib
import math
from dataclasses import replace
from typing import Any

import numpy as np

from densemble.data.check.likeness import thumbnail
from densemble.data.check.maps import map_files, measure_map
from densemble.data.check.problems import Problem, Severity, damage, from_error, in_split, leaving_out
from densemble.data.check.refused import explain_map
from densemble.data.check.seen import Seen, SeenImage
from densemble.data.check.subject import Checkable
from densemble.data.layouts import Sample
from densemble.data.read_pairs import is_point_table
from densemble.errors import DataError
from densemble.shapes import Array, Size, format_size
from densemble.storage import images as codec

_SMALL = 32
_OBLONG = 4
_MEASURED = 1 << 16
_SAME_SHAPE = 0.02


def look(data: Checkable, split: str, sample: Sample, name: str, kept: int) -> Seen:
    """Reads one pair.

    Args:
        data: the folder.
        split: of the pair.
        sample: the pair.
        name: of the pair, unique in the folder.
        kept: how many values of its map are kept.
    """
    seen = Seen(split, sample, name)
    image, valid = _look_at_image(seen, data)
    target = _look_at_map(seen, data, None if image is None else (image.shape[0], image.shape[1]), valid, kept)
    if image is not None and target is not None and data.reading.kind == "pixels":
        _compare(seen, image, target, data)
    if sample.points is not None:
        seen.with_points = True
        seen.problems += _look_at_fixations(seen)
    seen.problems = in_split(seen.problems, split)
    return seen


def _look_at_image(seen: Seen, data: Checkable) -> tuple[Array | None, Array | None]:
    """The image ``(H, W, C)``, and where it holds data ``(H, W)``."""
    sample = seen.sample
    try:
        image, valid = data.reading.image_and_validity(sample)
    except codec.SeveralImages as error:
        seen.problems.append(replace(from_error("several pages", sample.image, error), pair=seen.name))
        return None, None
    except DataError as error:
        broken = next((path for path in (sample.image, *sample.bands) if not _decodes(path)), None)
        if broken is not None:
            seen.problems.append(damage(broken, seen.name, error))
        else:
            seen.problems.append(replace(from_error("unusable image", sample.image, error), pair=seen.name))
        return None, None
    try:
        unit = _unit(image, data, valid)
    except DataError as error:
        seen.problems.append(replace(from_error("image values", sample.image, error), pair=seen.name))
        return None, None
    known = image.reshape(-1, image.shape[2]) if valid is None else image[valid]
    seen.image = SeenImage(
        size=(image.shape[0], image.shape[1]),
        channels=image.shape[2],
        depth=str(image.dtype),
        pixels=unit.shape[0],
        sums=np.einsum("nc->c", unit),
        squares=np.einsum("nc,nc->c", unit, unit),
        digest=hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest() + str(image.shape).encode(),
        thumbnail=thumbnail(_shown(image, data)),
        constant=bool(len(known) and (known == known[0]).all()),
        highest=float(known.max(initial=0)),
        known=len(known) / (image.shape[0] * image.shape[1]),
    )
    _judge_image(seen, seen.image)
    return image, valid


def _decodes(path: Any) -> bool:
    try:
        codec.read_image(path)
    except DataError:
        return False
    return True


def _unit(image: Array, data: Checkable, valid: Array | None) -> Array:
    """Pixels float64 ``(N, C)`` in [0, 1] that hold data, evenly taken; of floats all values are tried, for some may be
    wrong."""
    stride = max(1, math.isqrt(image.shape[0] * image.shape[1] // _MEASURED))
    if image.dtype.kind == "f":
        codec.as_unit(image, data.reading.options["image_range"])
    some = codec.as_unit(np.ascontiguousarray(image[::stride, ::stride]), data.reading.options["image_range"])
    known = some.reshape(-1, image.shape[2]) if valid is None else some[valid[::stride, ::stride]]
    return known.astype(np.float64)


def _shown(image: Array, data: Checkable) -> Array:
    return image if image.dtype == np.uint8 else codec.as_unit(image, data.reading.options["image_range"])


def _judge_image(seen: Seen, image: SeenImage) -> None:
    height, width = image.size
    size, path, name = format_size(image.size), seen.sample.image, seen.name

    def say(kind: str, message: str, remedy: str, severity: Severity = "warning") -> None:
        seen.problems.append(Problem(kind, str(path), message, remedy, severity, pair=name))

    if not image.known:
        say("empty image", f"'{path}' holds no data anywhere", f"leave it out: {leaving_out(name)}", "error")
    if image.constant:
        say("constant image", f"'{path}' is one colour everywhere", f"leave it out: {leaving_out(name)}", "error")
    if min(image.size) < _SMALL:
        say("small image", f"'{path}' is {size}, below {_SMALL} pixels", f"leave it out: {leaving_out(name)}")
    if max(height, width) > _OBLONG * min(height, width):
        message = f"'{path}' is {size}, more than {_OBLONG} times as long as wide; every image becomes one size"
        say("oblong image", message, f"cut it into pieces, or leave it out: {leaving_out(name)}")


def _look_at_map(seen: Seen, data: Checkable, size: Size | None, valid: Array | None, kept: int) -> Array | None:
    sample, reading = seen.sample, data.reading
    if size is None and (sample.drawing is not None or is_point_table(sample.target)):
        return None  # it is drawn at the size of its image
    try:
        target = replace(reading, classes=None).target(sample, size or (1, 1))
        if size is not None:
            _judge_turn(seen, data, target, size)
            target = reading.known_where(valid, reading.fitted(target, sample, size))
    except DataError as error:
        seen.problems.append(replace(explain_map(seen, data, error), pair=seen.name))
        return None
    seen.map = measure_map(seen, target, data, kept)
    if size is not None and target.shape[-2:] != size:
        seen.problems.append(_unequal(seen, data, target, size))
        return None
    return target


def _judge_turn(seen: Seen, data: Checkable, target: Array, size: Size) -> None:
    """Whether a map was drawn on the turned image cannot be told where both ways fit."""
    if data.reading.options["exif"] != "auto" or target.shape[-2:] != size:
        return
    orientation = data.reading.silent_turn(seen.sample)
    if orientation == 1 or (orientation >= 5 and size[0] != size[1]):
        return
    path = seen.sample.image
    message = f"the EXIF orientation of '{path}' is {orientation}: it is turned, its map is not, and both ways fit"
    remedy = (
        "look at `densemble data show`; where maps lie upright say --set data.exif=image, "
        "where they are turned like the stored pixels --set data.exif=both"
    )
    seen.problems.append(Problem("ambiguous orientation", str(path), message, remedy, "warning", pair=seen.name))


def _unequal(seen: Seen, data: Checkable, target: Array, size: Size) -> Problem:
    sample = seen.sample
    height, width = target.shape[-2:]
    message = (
        f"'{sample.image}' is {format_size(size)} but its map '{sample.target}' is {height}x{width} (height x width)"
    )
    again = f"make the map again, or leave the pair out: {leaving_out(seen.name)}"
    stretched = abs(math.log(height * size[1] / (width * size[0])))
    if (height, width) == (size[1], size[0]):
        turned = data.reading.silent_turn(sample) != 1 or data.reading.options["exif"] == "ignore"
        remedy = "turn the map as its image's EXIF orientation says: --set data.exif=auto" if turned else again
        message += "; one of them lies on its side"
    elif stretched < _SAME_SHAPE:
        remedy = "resize the maps to their images: --set data.resize_targets=true"
    else:
        remedy = f"{again}; --set data.resize_targets=true would stretch it, for its shape is another"
    return Problem("unequal sizes", str(map_files(seen)[0]), message, remedy, pair=seen.name)


def _compare(seen: Seen, image: Array, target: Array, data: Checkable) -> None:
    shown = np.moveaxis(_shown(image, data).astype(np.float32), -1, 0)
    shown = shown / np.float32(255) if image.dtype == np.uint8 else shown
    if shown.shape == target.shape and np.allclose(shown, target, atol=1e-6):
        message = f"'{seen.sample.target}' is its own image '{seen.sample.image}': there is nothing to learn"
        remedy = f"check which file is which, or leave the pair out: {leaving_out(seen.name)}"
        seen.problems.append(
            Problem("target is its image", str(seen.sample.target), message, remedy, "warning", pair=seen.name)
        )


def _look_at_fixations(seen: Seen) -> list[Problem]:
    path, name = seen.sample.points, seen.name
    assert path is not None
    remedy = f"make it again, or remove '{path}': then the pair is scored without fixations"
    try:
        points = codec.read_points(path)
    except DataError as error:
        return [replace(damage(path, name, error), remedy=remedy)]
    if seen.image is not None and points.shape != seen.image.size:
        sizes = f"{format_size((points.shape[0], points.shape[1]))}, the image is {format_size(seen.image.size)}"
        return [Problem("fixations", str(path), f"fixations '{path}' are {sizes}", remedy, pair=name)]
    if not points.any():
        return [Problem("fixations", str(path), f"fixations '{path}' hold no point", remedy, pair=name)]
    return []
