"""The overlay of an image that is too large to be looked at: every so manyth pixel of it and of its map."""

import numpy as np

from densemble.inference.drawing import as_rgb, draw_map
from densemble.inference.tiles.planes import Rows
from densemble.shapes import Array
from densemble.storage.large_image import LargeImage
from densemble.storage.pixels import as_unit
from densemble.tasks import Task

SIDE = 2048
"""Pixels along the longer side, at most."""
_COLUMNS = 4096


class SmallOverlay:
    """Collects what is drawn while a map comes in rows.

    Args:
        image: that is predicted.
        task: what its map means.
        value_range: numbers of the image that become 0 and 1.
    """

    def __init__(self, image: LargeImage, task: Task, value_range: tuple[float, float] | None = None) -> None:
        self._image, self._task, self._value_range = image, task, value_range
        self.step = -(-max(image.size) // SIDE)
        self._images: list[Array] = []
        self._maps: list[Array] = []
        self._labels: list[Array] = []
        self._valid: list[Array] = []

    def add(self, rows: Rows, valid: Array | None = None) -> None:
        """Takes finished rows with their labels, or else their mean, and where there is data in them, ``(n, W)``."""
        first = -rows.top % self.step
        if first >= rows.height:
            return
        self._images.append(self._pixels(rows.top + first, rows.height - first))
        kept, plane = (self._labels, "label") if "label" in rows.planes else (self._maps, "mean")
        kept.append(rows.planes[plane][..., first :: self.step, :: self.step].numpy())
        if valid is not None:
            self._valid.append(valid[first :: self.step, :: self.step])

    def _pixels(self, top: int, height: int) -> Array:
        """Every ``step``th pixel, read in parts so that no whole row of windows is held."""
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
        image = as_rgb(as_unit(np.concatenate(self._images), self._value_range))
        if not self._valid:
            return self._draw(image)
        valid = np.concatenate(self._valid)
        unknown = np.float32(np.nan if self._task.target_kind == "values" else 0)
        self._maps = [np.where(valid, np.concatenate(self._maps, axis=1), unknown)] if self._maps else []
        return np.where(valid[..., None], self._draw(image), image)

    def _draw(self, image: Array) -> Array:
        if self._labels:
            label = np.concatenate(self._labels)
            classes = np.zeros((self._task.out_channels, 1, 1), np.float32)  # only their number is looked at
            return draw_map(image, classes, self._task.target_kind, label)
        return draw_map(image, np.concatenate(self._maps, axis=1), self._task.target_kind)


def read_valid_rows(image: LargeImage, top: int, height: int) -> Array | None:
    """Where there is data in full rows, bool ``(height, W)``; ``None`` where the file says nothing of it.

    Read in parts, so that no whole row of windows is held.
    """
    if not image.declares_validity:
        return None
    width = image.size[1]
    parts = (image.read_validity(top, left, height, min(_COLUMNS, width - left)) for left in range(0, width, _COLUMNS))
    return np.concatenate([part for part in parts if part is not None], axis=1)
