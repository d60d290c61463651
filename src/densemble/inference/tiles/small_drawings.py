"""SmallDrawings: drawings of a large image, subsampled to every n-th pixel of the image and its maps."""

from collections.abc import Collection

import numpy as np

from densemble.inference.drawing import Drawing, as_rgb, draw_overlay, draw_uncertainty, draw_view
from densemble.inference.meaning import meaning_of
from densemble.inference.stored_maps import stored
from densemble.inference.tiles.planes import Rows
from densemble.shapes import Array
from densemble.storage.large_image import LargeImage
from densemble.storage.pixels import as_unit
from densemble.tasks import Task

SIDE = 2048
"""Most pixels along the longer side; maps of more than four channels have fewer, so that they need no more memory."""
_MOST_CHANNELS = 4
_COLUMNS = 4096


class SmallDrawings:
    """Collects the subsampled pixels while the maps come in rows.

    Args:
        image: the image that is predicted.
        task: task of its map.
        kinds: kinds of drawings: ``overlay``, ``map``, ``uncertainty``.
        members: number of members of the ensemble.
        image_range: numbers of the image that become 0 and 1.
    """

    def __init__(
        self,
        image: LargeImage,
        task: Task,
        kinds: Collection[str],
        members: int,
        image_range: tuple[float, float] | None = None,
    ) -> None:
        self._image, self._task, self._image_range = image, task, image_range
        self._kinds, self._members = kinds, members
        channels = 1 if task.distribution == "categorical" else task.out_channels
        side = int(SIDE * min(1.0, _MOST_CHANNELS / channels) ** 0.5)
        self.step = -(-max(image.size) // side)
        self._parts: dict[str, list[Array]] = {}

    def add(self, rows: Rows, valid: Array | None = None) -> None:
        """Add finished rows with the planes that the kinds need; ``valid`` ``(n, W)`` is true where they hold data."""
        first = -rows.top % self.step
        if not self._kinds or first >= rows.height:
            return
        parts: dict[str, Array] = {}
        if "overlay" in self._kinds:
            parts["image"] = self._pixels(rows.top + first, rows.height - first)
        if {"overlay", "map"} & set(self._kinds):
            name = "label" if "label" in rows.planes else "mean"
            parts[name] = rows.planes[name].numpy()[..., first :: self.step, :: self.step]
        if "uncertainty" in self._kinds:
            planes = {name: plane[..., first :: self.step, :: self.step] for name, plane in rows.planes.items()}
            parts["uncertainty"] = stored("uncertainty", planes, self._task)
        if valid is not None:
            parts["valid"] = valid[first :: self.step, :: self.step]
        for name, part in parts.items():
            self._parts.setdefault(name, []).append(part.copy())

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

    def drawn(self, kind: str) -> Drawing:
        """One of the kinds, at the subsampled size."""
        meaning, label, valid = meaning_of(self._task), self._joined("label"), self._joined("valid")
        if kind == "uncertainty":
            uncertainty = self._joined("uncertainty")
            assert uncertainty is not None
            return draw_uncertainty(uncertainty, meaning, self._members, valid)
        maps = self._joined("mean")
        if maps is None:  # of labels, only their number is used
            maps = np.zeros((self._task.out_channels, 1, 1), np.float32)
        if kind == "map":
            return draw_view(maps, meaning, label, valid)
        image = self._joined("image", axis=0)
        assert image is not None
        return draw_overlay(as_rgb(as_unit(image, self._image_range)), maps, meaning, label, valid)

    def _joined(self, name: str, axis: int = -2) -> Array | None:
        return np.concatenate(self._parts[name], axis=axis) if name in self._parts else None


def read_valid_rows(image: LargeImage, top: int, height: int) -> Array | None:
    """Where full rows hold data, bool ``(height, W)``; ``None`` if the file does not declare it.

    Rows are read in parts, so that memory never holds a whole row of windows.
    """
    if not image.declares_validity:
        return None
    width = image.size[1]
    parts = (image.read_validity(top, left, height, min(_COLUMNS, width - left)) for left in range(0, width, _COLUMNS))
    return np.concatenate([part for part in parts if part is not None], axis=1)
