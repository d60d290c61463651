"""COCO's panoptic maps: PNG files whose colours encode segment numbers."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from densemble.data.layouts.class_names import VOID
from densemble.errors import DataError
from densemble.shapes import Array, Size, format_size
from densemble.storage.images import read_image

PANOPTIC_FOLDERS = re.compile(r"(^|/)panoptic[^/]*/")


def find_panoptic_folder(annotations: Path, root: Path) -> Path | None:
    """Find the PNG folder of a panoptic JSON file: it has the stem of the file and lies beside it or in the root."""
    folders = (annotations.with_suffix(""), root / annotations.stem)
    return next((folder for folder in folders if folder.is_dir()), None)


@dataclass(frozen=True)
class PanopticDrawing:
    """Map segment numbers (R + 256 G + 65536 B) to the classes of the segments; segment 0 is void.

    Attributes:
        source: the annotation file.
        file: the PNG map.
        segments: (number, class) of each segment.
    """

    source: Path
    file: Path
    segments: tuple[tuple[int, int], ...]

    def labels(self, size: Size) -> Array:
        """Draw the label map, int64 ``(H, W)``.

        Raises:
            DataError: the PNG is unreadable, has another size, or holds a segment that is not in the annotation file.
        """
        image = read_image(self.file)
        if image.dtype != np.uint8 or image.shape[2] != 3:
            raise DataError(f"map '{self.file}' is not an 8-bit RGB image; use the panoptic PNG as downloaded")
        colors = image.astype(np.int64)
        if colors.shape[:2] != size:
            map_size = format_size((colors.shape[0], colors.shape[1]))
            raise DataError(f"map '{self.file}' is {map_size}, its image {format_size(size)}; use the annotated images")
        numbers, indices = np.unique(colors @ np.array([1, 256, 65536]), return_inverse=True)
        classes = {**dict(self.segments), 0: VOID}
        unknown = [number for number in numbers.tolist() if number not in classes]
        if unknown:
            raise DataError(
                f"map '{self.file}' holds segment {unknown[0]}, which '{self.source}' does not; add it there"
            )
        labels: Array = np.array([classes[number] for number in numbers.tolist()], np.int64)[indices.reshape(size)]
        return labels

    def regions(self, size: Size) -> Iterator[tuple[int, Array]]:
        """See :class:`TargetDrawing`; segments do not overlap, and void comes last."""
        labels = self.labels(size)
        for number in sorted(set(np.unique(labels).tolist()), key=lambda number: (number == VOID, number)):
            yield number, labels == number
