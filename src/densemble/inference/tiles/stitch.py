"""Stitching: answers of windows, one after the other, become finished rows of the whole map.

Held are the rows that are being finished, at the image's whole width, and where windows overlap the sums of what
windows below will still add to: a band, never the image.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from densemble.inference.tiles.windows import Windows

Planes = dict[str, Tensor]
"""Maps by name, ``(c, h, w)`` each, all of one h x w."""


def stitch(
    windows: Windows, answers: Iterator[Planes], finish: Callable[[Planes], Planes]
) -> Iterator[tuple[int, Planes]]:
    """Rows of the map from the top, as soon as nothing is missing in them.

    Args:
        windows: how the image was cut.
        answers: planes of what each window answers for, in the order of ``windows.answers()``; summed, by the windows'
            weights, where they overlap.
        finish: makes what is wanted of planes that are complete.

    Yields:
        The first row, and planes ``(c, n, W)`` on the CPU.
    """
    rows, columns = windows.rows, windows.columns
    above: Planes = {}
    for number, (first, end) in enumerate(rows.answers):
        done = min(rows.done_before(number + 1), rows.length) - first
        ready, below = _Strip(columns.length), _Strip(columns.length)
        for left, planes in _across(windows, number, answers):
            _add_rows(planes, above, left)
            if done > 0:
                ready.put(finish({name: plane[:, :done] for name, plane in planes.items()}), left, torch.device("cpu"))
            if first + done < min(end, rows.length):
                below.put({name: plane[:, done:] for name, plane in planes.items()}, left, None)
        above = below.planes
        if done > 0:
            yield first, ready.planes


class _Strip:
    """Rows at the image's whole width that are filled from the left."""

    def __init__(self, width: int) -> None:
        self._width = width
        self.planes: Planes = {}

    def put(self, planes: Planes, left: int, device: torch.device | None) -> None:
        """Takes the columns from ``left`` on; those beyond the image are dropped."""
        for name, plane in planes.items():
            if name not in self.planes:
                self.planes[name] = plane.new_empty((*plane.shape[:2], self._width), device=device)
            kept = min(int(plane.shape[-1]), self._width - left)
            if kept > 0:
                self.planes[name][..., left : left + kept].copy_(plane[..., :kept])


def _across(windows: Windows, number: int, answers: Iterator[Planes]) -> Iterator[tuple[int, Planes]]:
    """One row of windows as pieces that meet: where each begins, and its planes over the rows that the windows answer
    for, weighted, sums of all windows of the row."""
    columns = windows.columns
    carried: Planes = {}
    for place, (left, end) in enumerate(columns.answers):
        planes = {name: _weighted(plane, windows, number, place) for name, plane in next(answers).items()}
        for name, begun in carried.items():
            planes[name][..., : begun.shape[-1]] += begun
        done = columns.done_before(place + 1) - left
        carried = {name: plane[..., done:] for name, plane in planes.items()} if left + done < end else {}
        yield left, {name: plane[..., :done] for name, plane in planes.items()}


def _weighted(plane: Tensor, windows: Windows, number: int, place: int) -> Tensor:
    if not windows.blended:
        return plane
    weights = windows.rows.weights[number][:, None] * windows.columns.weights[place]
    return plane * weights.to(plane.device)


def _add_rows(planes: Planes, above: Planes, left: int) -> None:
    """Adds what the windows above said about the first rows; columns beyond the image are left as they are."""
    for name, begun in above.items():
        part = begun[..., left : left + planes[name].shape[-1]]
        planes[name][:, : part.shape[1], : part.shape[2]] += part
