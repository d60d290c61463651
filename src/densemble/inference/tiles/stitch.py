"""Stitching: outputs of windows, one after the other, become finished rows of the whole map.

Memory holds the rows that are being finished, at the full width of the image, and the sums to which the windows of the
next row still add: a band of the image, never the whole image.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from densemble.inference.tiles.windows import Windows

Planes = dict[str, Tensor]
"""Maps by name, each ``(c, h, w)``, all with the same h x w."""


def stitch(
    windows: Windows, outputs: Iterator[Planes], finish: Callable[[Planes], Planes]
) -> Iterator[tuple[int, Planes]]:
    """Yield rows of the map from the top, as soon as they are complete.

    Args:
        windows: how the image is divided.
        outputs: planes of the output box of each window, in the order of ``windows.output_boxes()``; where windows
            overlap, they are summed with the weights of the windows.
        finish: converts complete planes to the planes to return.

    Yields:
        The first row, and planes ``(c, n, W)`` on the CPU.
    """
    rows, columns = windows.rows, windows.columns
    above: Planes = {}
    for row, (first, end) in enumerate(rows.outputs):
        done = min(rows.complete_before(row + 1), rows.length) - first
        ready, below = _Strip(columns.length), _Strip(columns.length)
        for left, planes in _across(windows, row, outputs):
            _add_rows(planes, above, left)
            if done > 0:
                ready.put(finish({name: plane[:, :done] for name, plane in planes.items()}), left, torch.device("cpu"))
            if first + done < min(end, rows.length):
                below.put({name: plane[:, done:] for name, plane in planes.items()}, left, None)
        above = below.planes
        if done > 0:
            yield first, ready.planes


class _Strip:
    """Rows at the full width of the image, filled from the left."""

    def __init__(self, width: int) -> None:
        self._width = width
        self.planes: Planes = {}

    def put(self, planes: Planes, left: int, device: torch.device | None) -> None:
        """Copy planes to the columns from ``left`` on; columns beyond the image are dropped."""
        for name, plane in planes.items():
            if name not in self.planes:
                self.planes[name] = plane.new_empty((*plane.shape[:2], self._width), device=device)
            kept = min(int(plane.shape[-1]), self._width - left)
            if kept > 0:
                self.planes[name][..., left : left + kept].copy_(plane[..., :kept])


def _across(windows: Windows, row: int, outputs: Iterator[Planes]) -> Iterator[tuple[int, Planes]]:
    """One row of windows as adjacent pieces: the first column of each, and its weighted sums over all windows."""
    columns = windows.columns
    carried: Planes = {}
    for column, (left, end) in enumerate(columns.outputs):
        planes = {name: _weighted(plane, windows, row, column) for name, plane in next(outputs).items()}
        for name, partial_sum in carried.items():
            planes[name][..., : partial_sum.shape[-1]] += partial_sum
        done = columns.complete_before(column + 1) - left
        carried = {name: plane[..., done:] for name, plane in planes.items()} if left + done < end else {}
        yield left, {name: plane[..., :done] for name, plane in planes.items()}


def _weighted(plane: Tensor, windows: Windows, row: int, column: int) -> Tensor:
    if not windows.blended:
        return plane
    weights = windows.rows.weights[row][:, None] * windows.columns.weights[column]
    return plane * weights.to(plane.device)


def _add_rows(planes: Planes, above: Planes, left: int) -> None:
    """Add the sums of the windows above to the first rows; columns beyond the image are not changed."""
    for name, partial_sum in above.items():
        part = partial_sum[..., left : left + planes[name].shape[-1]]
        planes[name][:, : part.shape[1], : part.shape[2]] += part
