"""COCO's panoptic maps: PNG files whose colours are numbers of segments."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from densemble.data.layouts.class_names import VOID
from densemble.errors import DataError
from densemble.shapes import Array, Size, format_size
from densemble.storage.images import read_image

panoptic_folders = re.compile(r"(^|/)panoptic[^/]*/")


def find_panoptic_folder(annotations: Path, root: Path) -> Path | None:
    """The folder of the PNG maps of a panoptic JSON file: it has the file's name, and lies beside it or in the root."""
    places = (annotations.with_suffix(""), root / annotations.stem)
    return next((folder for folder in places if folder.is_dir()), None)


@dataclass(frozen=True)
class PanopticDrawing:
    """Reads segment numbers (R + 256 G + 65536 B) and gives each the class of its segment; 0 is void.

    Attributes:
        source: the annotation file.
        file: the PNG map.
        segments: (number, class) of each segment.
    """

    source: Path
    file: Path
    segments: tuple[tuple[int, int], ...]

    def labels(self, size: Size) -> Array:
        """The label map, int64 ``(H, W)``.

        Raises:
            DataError: the PNG is unreadable, of another size, or holds a segment that the annotation file does not.
        """
        image = read_image(self.file)
        if image.dtype != np.uint8 or image.shape[2] != 3:
            raise DataError(f"map '{self.file}' is no 8-bit RGB image; take the panoptic PNG as it was downloaded")
        colors = image.astype(np.int64)
        if colors.shape[:2] != size:
            found = format_size((colors.shape[0], colors.shape[1]))
            raise DataError(f"map '{self.file}' is {found}, its image {format_size(size)}; use the images annotated")
        numbers, places = np.unique(colors @ np.array([1, 256, 65536]), return_inverse=True)
        classes = {**dict(self.segments), 0: VOID}
        unknown = [number for number in numbers.tolist() if number not in classes]
        if unknown:
            raise DataError(
                f"map '{self.file}' holds segment {unknown[0]}, which '{self.source}' does not; add it there"
            )
        drawn: Array = np.array([classes[number] for number in numbers.tolist()], np.int64)[places.reshape(size)]
        return drawn

    def regions(self, size: Size) -> Iterator[tuple[int, Array]]:
        """See :class:`Drawing`; segments do not overlap, and what is void comes last."""
        labels = self.labels(size)
        for number in sorted(set(np.unique(labels).tolist()), key=lambda number: (number == VOID, number)):
            yield number, labels == number
