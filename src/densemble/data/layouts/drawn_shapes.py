"""Label maps drawn from shapes: polygons, ellipses, runs of pixels, brush strokes and masks in files."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from densemble.data.layouts.brush import decode_brush
from densemble.errors import DataError, UsageError
from densemble.shapes import Array, Size, format_size
from densemble.storage.images import read_labels

_FARTHEST = 1 << 20  # pixels outside the image; the rasterizer's memory grows with the length of the outline


class Shape(Protocol):
    """One region of one class."""

    @property
    def label(self) -> int:
        """Number of the class."""

    def mask(self, size: Size) -> Array:
        """The region in an image of that (H, W), bool ``(H, W)``.

        Raises:
            ValueError: the shape cannot be drawn; the message is the reason alone.
        """


@dataclass(frozen=True)
class ShapeDrawing:
    """Draws shapes one over the other, the last on top.

    Attributes:
        source: the annotation file.
        image: what that file calls the image.
        size: (H, W) of the image as the file says, if it does.
        shapes: from the bottom to the top; where there is none, the class is 0.
    """

    source: Path
    image: str
    size: Size | None
    shapes: tuple[Shape, ...]

    def labels(self, size: Size) -> Array:
        """The label map, int64 ``(H, W)``.

        Raises:
            DataError: a shape cannot be drawn, or the image has another size than the file says.
            UsageError: polygons need the package pycocotools.
        """
        labels = np.zeros(size, np.int64)
        for number, region in self._drawn(size):
            labels[region] = number
        return labels

    def regions(self, size: Size) -> Iterator[tuple[int, Array]]:
        """See :class:`Drawing`; the background comes last."""
        uncovered = np.ones(size, bool)
        for number, region in self._drawn(size):
            uncovered &= ~region
            yield number, region
        yield 0, uncovered

    def _drawn(self, size: Size) -> Iterator[tuple[int, Array]]:
        if self.size not in (None, size):
            raise DataError(
                f"'{self.source}' says that '{self.image}' is {format_size(self.size or size)}, "
                f"but it is {format_size(size)}; use the images that were annotated"
            )
        for shape in self.shapes:
            try:
                yield shape.label, shape.mask(size)
            except ValueError as error:
                raise DataError(
                    f"'{self.source}': a shape of '{self.image}' cannot be drawn: {error}; correct or delete it"
                ) from error


@dataclass(frozen=True)
class Polygons:
    """What lies in any of some outlines; drawn as the COCO tools do. See ``outline`` for how they are held."""

    label: int
    outlines: tuple[bytes, ...]

    def mask(self, size: Size) -> Array:
        """The region, bool ``(H, W)``.

        Raises:
            ValueError: no outline, fewer than three points, or points far from the image.
            UsageError: pycocotools is not installed.
        """
        if not self.outlines:
            raise ValueError("it has no outline (a box alone is no mask)")
        points = [np.frombuffer(outline, np.float64) for outline in self.outlines]
        for values in points:
            if values.size < 6 or values.size % 2:
                raise ValueError(f"an outline of {values.size} numbers is no polygon of three points or more")
            if not (np.abs(values) <= max(size) + _FARTHEST).all():
                raise ValueError("an outline is not finite or lies far outside the image")
        codec = _coco_masks()
        runs = codec.frPyObjects([values.tolist() for values in points], *size)
        drawn: Array = codec.decode(codec.merge(runs)).astype(bool)
        return drawn


@dataclass(frozen=True)
class Ellipse:
    """An ellipse; a pixel belongs to it where its centre does.

    Attributes:
        label: number of the class.
        center: (x, y) in pixels, 0 at the left and upper edge of the image.
        radii: along its own two axes, in pixels.
        rotation: of the first axis, clockwise from the right, in degrees.
    """

    label: int
    center: tuple[float, float]
    radii: tuple[float, float]
    rotation: float

    def mask(self, size: Size) -> Array:
        """The region, bool ``(H, W)``.

        Raises:
            ValueError: a radius that is not positive, or numbers that are not finite.
        """
        if not (np.isfinite([*self.center, self.rotation, *self.radii]).all() and min(self.radii) > 0):
            raise ValueError(f"an ellipse of radii {self.radii[0]:g} and {self.radii[1]:g} covers nothing")
        right, down = np.arange(size[1]) + 0.5 - self.center[0], (np.arange(size[0]) + 0.5 - self.center[1])[:, None]
        cosine, sine = np.cos(np.deg2rad(self.rotation)), np.sin(np.deg2rad(self.rotation))
        along, across = right * cosine + down * sine, down * cosine - right * sine
        inside: Array = (along / self.radii[0]) ** 2 + (across / self.radii[1]) ** 2 <= 1
        return inside


def outline(numbers: Sequence[float]) -> bytes:
    """x, y, x, y, ... in pixels as bytes of float64: a quarter of the memory of a list, and it can be hashed.

    Raises:
        TypeError: something else than numbers.
    """
    return array("d", numbers).tobytes()


def _coco_masks() -> Any:
    try:
        from pycocotools import mask
    except ImportError as error:
        raise UsageError(
            'drawing polygons needs the package pycocotools: install it with pip install "densemble[coco]"'
        ) from error
    return mask


@dataclass(frozen=True)
class Runs:
    """Numbers of pixels off, on, off, ... in a box.

    Attributes:
        label: number of the class.
        counts: lengths of the runs; the first is off.
        by_columns: runs go down the columns (COCO) instead of along the rows (CVAT).
        box: (left, top, height, width) in pixels; ``None`` is the whole image.
        drawn_for: (H, W) of the image that the runs were made for, if the file says it.
        name: what the file calls the region, for messages.
    """

    label: int
    counts: tuple[int, ...]
    by_columns: bool
    box: tuple[int, int, int, int] | None = None
    drawn_for: Size | None = None
    name: str = "it"

    def mask(self, size: Size) -> Array:
        """The region, bool ``(H, W)``.

        Raises:
            ValueError: the runs are for an image of another size, do not fill the box, or the box leaves the image.
        """
        if self.drawn_for not in (None, size):
            raise ValueError(
                f"{self.name} has runs for {format_size(self.drawn_for or size)}, but the image is "
                f"{format_size(size)} (height x width)"
            )
        left, top, height, width = self.box or (0, 0, *size)
        if min(left, top, height, width) < 0 or left + width > size[1] or top + height > size[0]:
            raise ValueError(f"its box {width}x{height} at {left}, {top} leaves the image")
        if min(self.counts, default=0) < 0 or sum(self.counts) != height * width:
            raise ValueError(f"its runs hold {sum(self.counts)} pixels, wanted {height * width}")
        values = np.repeat(np.arange(len(self.counts)) % 2 == 1, np.array(self.counts, np.int64))
        region = np.zeros(size, bool)
        region[top : top + height, left : left + width] = values.reshape(
            (height, width), order="F" if self.by_columns else "C"
        )
        return region


@dataclass(frozen=True)
class CompressedRuns:
    """COCO's compressed runs: groups of 5 bits as text, from the third run on as differences to the last but one.

    ``drawn_for`` and ``name`` as in :class:`Runs`.
    """

    label: int
    text: str
    drawn_for: Size | None = None
    name: str = "it"

    def mask(self, size: Size) -> Array:
        """The region, bool ``(H, W)``.

        Raises:
            ValueError: no such text, or runs that are not of that image.
        """
        # pycocotools is not asked: it returns uninitialized memory for runs that do not fill the image.
        counts = _read_runs(self.text)
        return Runs(self.label, counts, by_columns=True, drawn_for=self.drawn_for, name=self.name).mask(size)


def _read_runs(text: str) -> tuple[int, ...]:
    counts: list[int] = []
    value, shift = 0, 0
    for character in text:
        group = ord(character) - 48
        if not 0 <= group < 64 or shift > 60:
            raise ValueError("its compressed runs are damaged")
        value |= (group & 0x1F) << shift
        shift += 5
        if not group & 0x20:
            value -= (group & 0x10) << (shift - 4)  # sign of the last group
            counts.append(value + counts[-2] if len(counts) > 2 else value)
            value, shift = 0, 0
    if shift:
        raise ValueError("its compressed runs end too early")
    return tuple(counts)


@dataclass(frozen=True)
class Brush:
    """A Label Studio brush stroke: runs of an RGBA image; where alpha is not 0 is the region."""

    label: int
    code: bytes

    def mask(self, size: Size) -> Array:
        """The region, bool ``(H, W)``.

        Raises:
            ValueError: damaged, or of another size.
        """
        region: Array = decode_brush(self.code, size[0] * size[1] * 4).reshape(*size, 4)[..., 3] != 0
        return region


@dataclass(frozen=True)
class MaskFile:
    """A mask in a file of its own: where it is not 0 is the region."""

    label: int
    file: Path

    def mask(self, size: Size) -> Array:
        """The region, bool ``(H, W)``.

        Raises:
            DataError: unreadable.
            ValueError: of another size.
        """
        region: Array = read_labels(self.file) != 0
        if region.shape != size:
            raise ValueError(f"mask '{self.file.name}' is {format_size(region.shape)}, wanted {format_size(size)}")
        return region
