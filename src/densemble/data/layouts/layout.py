"""What a data set on disk is made of: samples, and the layout that they were found in."""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Protocol

from densemble.shapes import Array, Size

SPLITS = ("train", "val", "test")


class Drawing(Protocol):
    """Draws a label map where no file holds it."""

    def labels(self, size: Size) -> Array:
        """The label map of an image of that (H, W), int64 ``(H, W)``.

        Raises:
            DataError: what the annotation file says cannot be drawn; names that file.
        """

    def regions(self, size: Size) -> Iterator[tuple[int, Array]]:
        """Class number and whole region, bool ``(H, W)``, of everything in an image of that (H, W).

        Regions may overlap. What none covers comes last, with the number that :meth:`labels` gives it.

        Raises:
            DataError: as :meth:`labels`.
        """


@dataclass(frozen=True)
class Sample:
    """An image with its map.

    Attributes:
        image: the image.
        target: the file that holds the map; or the annotation file that ``drawing`` draws from, or the folder of
            ``planes``.
        points: 1-bit map of fixations (folder ``fixations/``), saliency only.
        drawing: draws the map where no file holds it.
        bands: more files whose channels follow those of ``image``.
        planes: (class name, file) for each class, where every class has a file of its own (multilabel).
        absent: names of the classes that have no file for this image: nothing of them is there.
        group: images of one group (a city, a patient, a video) belong into one split.
        name: unique name, where the image's stem is not.
    """

    image: Path
    target: Path
    points: Path | None = None
    drawing: Drawing | None = None
    bands: tuple[Path, ...] = ()
    planes: tuple[tuple[str, Path], ...] = ()
    group: str | None = None
    name: str | None = None
    absent: tuple[str, ...] = ()

    @property
    def stem(self) -> str:
        """The name of the sample: no other sample of its split has it."""
        return unicodedata.normalize("NFC", self.name or self.image.stem)

    @property
    def plane_names(self) -> tuple[str, ...]:
        """Names of the classes that have files of their own, for this image or for others, in their order."""
        return tuple(sorted([*(name for name, _ in self.planes), *self.absent]))

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of its image and map alone: an annotation file of many images is none of them."""
        planes = tuple(path for _, path in self.planes)
        map_files = planes or (() if self.absent else (self.target,))
        if self.drawing is not None:
            map_files = (*_files_in(self.drawing), *planes)
        points = (self.points,) if self.points is not None else ()
        return (self.image, *self.bands, *map_files, *points)


def _files_in(drawing: object) -> tuple[Path, ...]:
    """The files that a drawing reads besides its ``source``, the annotation file."""
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
    """What was found in a data folder.

    Attributes:
        path: the folder.
        name: of the layout, such as ``images + targets`` or ``coco``.
        splits: samples by split name, only splits that exist; ``{"all": samples}`` where the folder has none itself.
        unpaired: files without their partner; also files that a list names and that are not there.
        split_by: ``folders``, ``files``, ``column``, or ``none``.
        classes: names of the classes, by number, where the layout says them.
        ignore_index: label that is neither trained on nor scored, where the format says so.
        label_map: label in the files -> class number, where they differ.
        color_map: (R, G, B) in the masks -> class number, where the masks are colour-coded.
        doubled: pairs of files that claim the same name; the first of each is used.
        incomplete: by split, samples of which some classes have no file; their images are among the unpaired.
        undrawn: type of region, such as ``box`` -> how many an annotation file has that no map shows.
        usual_classes: whether ``classes`` are only those that the format usually has: the data set says none.
        unused: other files beside the images and maps, which the layout has no use for.
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
    usual_classes: bool = False
    unused: tuple[Path, ...] = ()
