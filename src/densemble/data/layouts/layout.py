"""Samples and the layout of a data set on disk."""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Protocol

from densemble.shapes import Array, Size

SPLITS = ("train", "val", "test")


class TargetDrawing(Protocol):
    """Draws a label map from an annotation file."""

    def labels(self, size: Size) -> Array:
        """Draw the label map of an image of ``size`` (H, W), int64 ``(H, W)``.

        Raises:
            DataError: the annotations cannot be drawn; the message names the annotation file.
        """

    def regions(self, size: Size) -> Iterator[tuple[int, Array]]:
        """Yield class number and complete region, bool ``(H, W)``, of each object in an image of ``size`` (H, W).

        Regions may overlap. The uncovered area comes last, with the class number that :meth:`labels` gives it.

        Raises:
            DataError: the annotations cannot be drawn; the message names the annotation file.
        """


@dataclass(frozen=True)
class Sample:
    """An image with its target.

    Attributes:
        image: image file.
        target: target file, or the annotation file that ``drawing`` reads, or the folder of ``planes``.
        points: 1-bit map of fixations (folder ``fixations/``), saliency only.
        drawing: draws the target if no file holds it.
        bands: further files; their channels follow those of ``image``.
        planes: (class name, file) per class, if each class has a separate file (multilabel).
        absent: names of the classes that have no file for this image; the image does not contain them.
        group: group of the image (a city, a patient, a video). All images of a group belong to one split.
        name: unique name, if the stem of the image is not unique.
    """

    image: Path
    target: Path
    points: Path | None = None
    drawing: TargetDrawing | None = None
    bands: tuple[Path, ...] = ()
    planes: tuple[tuple[str, Path], ...] = ()
    group: str | None = None
    name: str | None = None
    absent: tuple[str, ...] = ()

    @property
    def stem(self) -> str:
        """Name of the sample, unique in its split."""
        return unicodedata.normalize("NFC", self.name or self.image.stem)

    @property
    def plane_names(self) -> tuple[str, ...]:
        """Sorted names of the classes with separate files, whether or not this image has such a file."""
        return tuple(sorted([*(name for name, _ in self.planes), *self.absent]))

    @property
    def files(self) -> tuple[Path, ...]:
        """Files that belong to this sample alone, without annotation files that describe many images."""
        planes = tuple(path for _, path in self.planes)
        target_files = planes or (() if self.absent else (self.target,))
        if self.drawing is not None:
            target_files = (*_files_in(self.drawing), *planes)
        points = (self.points,) if self.points is not None else ()
        return (self.image, *self.bands, *target_files, *points)


def _files_in(drawing: object) -> tuple[Path, ...]:
    """Files that a drawing reads, except the annotation file ``source``."""
    if isinstance(drawing, Path):
        return (drawing,)
    if isinstance(drawing, tuple):
        return tuple(path for part in drawing for path in _files_in(part))
    if not is_dataclass(drawing):
        return ()
    parts = (getattr(drawing, field.name) for field in fields(drawing) if field.name != "source")
    return tuple(path for part in parts for path in _files_in(part))


@dataclass(frozen=True)
class Layout:
    """Content of a data folder.

    Attributes:
        path: the folder.
        name: name of the layout, such as ``images + targets`` or ``coco``.
        splits: samples by split name, existing splits only; ``{"all": samples}`` if the data set defines no splits.
        unpaired: images without a target, targets without an image, and listed files that do not exist.
        split_by: ``folders``, ``files``, ``column``, or ``none``.
        classes: class names by number, if the layout defines them.
        ignore_index: label that is neither trained on nor scored, if the format defines one.
        label_map: label in the files -> class number, if they differ.
        color_map: (R, G, B) in the masks -> class number, if the masks are colour-coded.
        doubled: pairs of files with the same name; the first file of each pair is used.
        incomplete: by split, samples that lack the files of some classes; their images are also in ``unpaired``.
        undrawn: number of annotations per type, such as ``box``, that are not drawn into the targets.
        default_classes: whether ``classes`` are the defaults of the format because the data set names none.
        unused: other files beside the images and targets that the layout does not use.
    """

    path: Path
    name: str
    splits: dict[str, tuple[Sample, ...]]
    unpaired: tuple[Path, ...] = ()
    split_by: str = "none"
    classes: tuple[str, ...] | None = None
    ignore_index: int | None = None
    label_map: dict[int, int] | None = None
    color_map: dict[tuple[int, int, int], int] | None = None
    doubled: tuple[tuple[Path, Path], ...] = ()
    incomplete: dict[str, tuple[Sample, ...]] = field(default_factory=dict)
    undrawn: dict[str, int] = field(default_factory=dict)
    default_classes: bool = False
    unused: tuple[Path, ...] = ()
