"""SmallOverlay: overlay of a large image, subsampled to every n-th pixel of the image and its map."""

import numpy as np

from densemble.inference.drawing import as_rgb, draw_map
from densemble.inference.tiles.planes import Rows
from densemble.shapes import Array
from densemble.storage.large_image import LargeImage
from densemble.storage.pixels import as_unit
from densemble.tasks import Task

SIDE = 2048
"""Most pixels along the longer side."""
_COLUMNS = 4096


class SmallOverlay:
    """Collects the subsampled pixels while the map comes in rows.

    Args:
        image: the image that is predicted.
        task: task of its map.
        image_range: numbers of the image that become 0 and 1.
    """

    def __init__(self, image: LargeImage, task: Task, image_range: tuple[float, float] | None = None) -> None:
        self._image, self._task, self._image_range = image, task, image_range
        self.step = -(-max(image.size) // SIDE)
        self._images: list[Array] = []
        self._maps: list[Array] = []
        self._labels: list[Array] = []
        self._valid: list[Array] = []

    def add(self, rows: Rows, valid: Array | None = None) -> None:
        """Add finished rows with labels or mean; ``valid`` ``(n, W)`` is true where they hold data."""
        first = -rows.top % self.step
        if first >= rows.height:
            return
        self._images.append(self._pixels(rows.top + first, rows.height - first))
        parts, plane = (self._labels, "label") if "label" in rows.planes else (self._maps, "mean")
        parts.append(rows.planes[plane][..., first :: self.step, :: self.step].numpy())
        if valid is not None:
            self._valid.append(valid[first :: self.step, :: self.step])

    def _pixels(self, top: int, height: int) -> Array:
        """Every n-th pixel for n = ``step``, read in parts so that memory never holds a whole row of windows."""
        width = self._image.size[1]
        columns = _COLUMNS // self.step * self.step
        return np.concatenate(
            [
                self._image.read(top, left, height, min(columns, width - left))[:: self.step, :: self.step]
                for left in range(0, width, columns)
            ],
            axis=1,
        )

    def drawn(self) -> Array:
        """The overlay, uint8 ``(h, w, 3)``."""
        image = as_rgb(as_unit(np.concatenate(self._images), self._image_range))
        valid = np.concatenate(self._valid) if self._valid else None
        if self._labels:
            label = np.concatenate(self._labels)
            classes = np.zeros((self._task.out_channels, 1, 1), np.float32)  # only their number is used
            return draw_map(image, classes, self._task.target_kind, label, valid)
        return draw_map(image, np.concatenate(self._maps, axis=1), self._task.target_kind, valid=valid)


def read_valid_rows(image: LargeImage, top: int, height: int) -> Array | None:
    """Where full rows hold data, bool ``(height, W)``; ``None`` if the file does not declare it.

    Rows are read in parts, so that memory never holds a whole row of windows.
    """
    if not image.declares_validity:
        return None
    width = image.size[1]
    parts = (image.read_validity(top, left, height, min(_COLUMNS, width - left)) for left in range(0, width, _COLUMNS))
    return np.concatenate([part for part in parts if part is not None], axis=1)
