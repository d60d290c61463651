"""Draw label maps from shapes: polygons, ellipses, runs of pixels, brush strokes and mask files."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from densemble.data.layouts.brush import decode_brush
from densemble.errors import DataError, needs_package
from densemble.shapes import Array, Size, format_size
from densemble.storage.images import read_labels

# Largest distance of a point from the image in pixels; the rasterizer's memory grows with the length of the outline.
_MAX_DISTANCE = 1 << 20


class Shape(Protocol):
    """One region of one class."""

    @property
    def label(self) -> int:
        """Class number."""

    def mask(self, size: Size) -> Array:
        """Draw the region in an image of ``size`` (H, W), bool ``(H, W)``.

        Raises:
            ValueError: the shape cannot be drawn; the message gives the reason only.
        """


@dataclass(frozen=True)
class ShapeDrawing:
    """Draw shapes on top of each other; the last one is on top.

    Attributes:
        source: the annotation file.
        image: name of the image in the annotation file.
        size: (H, W) of the image according to the annotation file, if given.
        shapes: shapes from bottom to top; uncovered pixels have class 0.
    """

    source: Path
    image: str
    size: Size | None
    shapes: tuple[Shape, ...]

    def labels(self, size: Size) -> Array:
        """Draw the label map, int64 ``(H, W)``.

        Raises:
            DataError: a shape cannot be drawn, or ``size`` differs from the size in the annotation file.
            UsageError: there are polygons, and pycocotools is not installed.
        """
        labels = np.zeros(size, np.int64)
        for number, region in self._drawn(size):
            labels[region] = number
        return labels

    def regions(self, size: Size) -> Iterator[tuple[int, Array]]:
        """See :class:`TargetDrawing`; the background comes last."""
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
    """The union of outlines, drawn as the COCO tools do. :func:`outline` makes an outline."""

    label: int
    outlines: tuple[bytes, ...]

    def mask(self, size: Size) -> Array:
        """Draw the region, bool ``(H, W)``.

        Raises:
            ValueError: there is no outline, or an outline has fewer than three points or points far from the image.
            UsageError: pycocotools is not installed.
        """
        if not self.outlines:
            raise ValueError("it has no outline (a box is not a mask)")
        points = [np.frombuffer(outline, np.float64) for outline in self.outlines]
        for values in points:
            if values.size < 6 or values.size % 2:
                raise ValueError(f"an outline of {values.size} numbers is not a polygon of at least three points")
            if not (np.abs(values) <= max(size) + _MAX_DISTANCE).all():
                raise ValueError("an outline is not finite or lies far outside the image")
        with needs_package("pycocotools", "drawing polygons", "coco"):
            from pycocotools import mask as codec
        runs = codec.frPyObjects([values.tolist() for values in points], *size)
        region: Array = codec.decode(codec.merge(runs)).astype(bool)
        return region


@dataclass(frozen=True)
class Ellipse:
    """An ellipse; it contains the pixels whose centre lies inside.

    Attributes:
        label: class number.
        center: (x, y) in pixels; (0, 0) is the upper left corner of the image.
        radii: radii along the two axes in pixels.
        rotation: rotation of the first axis in degrees, clockwise from the right.
    """

    label: int
    center: tuple[float, float]
    radii: tuple[float, float]
    rotation: float

    def mask(self, size: Size) -> Array:
        """Draw the region, bool ``(H, W)``.

        Raises:
            ValueError: a radius is not positive, or a number is not finite.
        """
        if not (np.isfinite([*self.center, self.rotation, *self.radii]).all() and min(self.radii) > 0):
            raise ValueError(f"an ellipse of radii {self.radii[0]:g} and {self.radii[1]:g} covers nothing")
        right, down = np.arange(size[1]) + 0.5 - self.center[0], (np.arange(size[0]) + 0.5 - self.center[1])[:, None]
        cosine, sine = np.cos(np.deg2rad(self.rotation)), np.sin(np.deg2rad(self.rotation))
        along, across = right * cosine + down * sine, down * cosine - right * sine
        inside: Array = (along / self.radii[0]) ** 2 + (across / self.radii[1]) ** 2 <= 1
        return inside


def outline(numbers: Sequence[float]) -> bytes:
    """Pack coordinates x, y, x, y, ... in pixels into float64 bytes.

    Bytes take a quarter of the memory of a list and are hashable.

    Raises:
        TypeError: an element is not a number.
    """
    return array("d", numbers).tobytes()


@dataclass(frozen=True)
class Runs:
    """Run lengths of pixels outside, inside, outside, ... of the region in a box.

    Attributes:
        label: class number.
        counts: lengths of the runs; the first run is outside the region.
        by_columns: whether runs go down the columns (COCO) or along the rows (CVAT).
        box: (left, top, height, width) in pixels; ``None`` is the whole image.
        drawn_for: (H, W) of the annotated image, if the annotation file gives it.
        name: name of the region in error messages.
    """

    label: int
    counts: tuple[int, ...]
    by_columns: bool
    box: tuple[int, int, int, int] | None = None
    drawn_for: Size | None = None
    name: str = "it"

    def mask(self, size: Size) -> Array:
        """Draw the region, bool ``(H, W)``.

        Raises:
            ValueError: the runs belong to another image size, do not fill the box, or the box leaves the image.
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
            raise ValueError(f"its runs hold {sum(self.counts)} pixels, expected {height * width}")
        values = np.repeat(np.arange(len(self.counts)) % 2 == 1, np.array(self.counts, np.int64))
        region = np.zeros(size, bool)
        region[top : top + height, left : left + width] = values.reshape(
            (height, width), order="F" if self.by_columns else "C"
        )
        return region


@dataclass(frozen=True)
class CompressedRuns:
    """COCO's compressed runs: groups of 5 bits as text.

    From the fourth run on, each value is the difference to the run two positions before. ``drawn_for`` and ``name``
    have the same meaning as in :class:`Runs`.
    """

    label: int
    text: str
    drawn_for: Size | None = None
    name: str = "it"

    def mask(self, size: Size) -> Array:
        """Draw the region, bool ``(H, W)``.

        Raises:
            ValueError: the text is damaged, or the runs do not fit the image.
        """
        # pycocotools is not used here: it returns uninitialized memory for runs that do not fill the image.
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
    """A Label Studio brush stroke: an encoded RGBA image whose region is where alpha is not 0."""

    label: int
    code: bytes

    def mask(self, size: Size) -> Array:
        """Draw the region, bool ``(H, W)``.

        Raises:
            ValueError: the stroke is damaged or has another size.
        """
        region: Array = decode_brush(self.code, size[0] * size[1] * 4).reshape(*size, 4)[..., 3] != 0
        return region


@dataclass(frozen=True)
class MaskFile:
    """A mask in a separate file; the region is where it is not 0."""

    label: int
    file: Path

    def mask(self, size: Size) -> Array:
        """Read the region, bool ``(H, W)``.

        Raises:
            DataError: the file is unreadable.
            ValueError: the mask has another size.
        """
        region: Array = read_labels(self.file) != 0
        if region.shape != size:
            raise ValueError(f"mask '{self.file.name}' is {format_size(region.shape)}, expected {format_size(size)}")
        return region
