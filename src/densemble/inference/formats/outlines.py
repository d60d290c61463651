"""Outlines: polygons whose union is exactly a mask; regions with holes are divided until no hole is left."""

from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from densemble.shapes import Array

Outline = list[tuple[int, int]]
"""Corners (x, y) in pixels, (0, 0) is the outer corner of the first pixel; along pixel edges, not closed."""


def outlines(mask: Array) -> list[Outline]:
    """Outlines of the connected components (4 neighbours) of a mask, bool ``(H, W)``.

    A list of polygons, as COCO stores it, cannot hold holes. A component with holes is cut along a column through a
    hole, so that the hole becomes a part of the border; the parts share an edge and do not overlap.
    """
    return [[(left + x, top + y) for x, y in _outline(part)] for top, left, part in _without_holes(mask)]


def _without_holes(mask: Array) -> Iterator[tuple[int, int, Array]]:
    """Parts of a mask without holes: top row, left column and mask ``(h, w)``."""
    pending = [(0, 0, mask)]
    while pending:
        top, left, region = pending.pop()
        ids, count = ndimage.label(region)
        for index, box in enumerate(ndimage.find_objects(ids, count), start=1):
            part = ids[box] == index
            at = top + box[0].start, left + box[1].start
            background, _ = ndimage.label(~np.pad(part, 1))  # 1 is around the part, others are holes
            columns = np.flatnonzero((background > 1).any(axis=0)) - 1
            if not len(columns):
                yield (*at, part)
                continue
            # Cut through the hole nearest to the middle, so that the parts become small quickly.
            column = int(columns[np.abs(columns - part.shape[1] // 2).argmin()])
            pending += [(at[0], at[1] + first, part[:, first:end]) for first, end in ((column, None), (0, column))]


def _outline(part: Array) -> Outline:
    """Outline of one component without holes, clockwise on the screen."""
    padded = np.pad(part, 1)
    inside = padded[1:-1, 1:-1]
    # Directed edges with the region to the right: along the upper, right, lower and left side of pixels.
    sides = (
        (~padded[:-2, 1:-1], (0, 0), (1, 0)), (~padded[1:-1, 2:], (1, 0), (0, 1)),
        (~padded[2:, 1:-1], (1, 1), (-1, 0)), (~padded[1:-1, :-2], (0, 1), (0, -1)),
    )  # fmt: skip
    steps: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for outside, (right, down), step in sides:
        for y, x in np.argwhere(inside & outside).tolist():
            steps.setdefault((x + right, y + down), []).append(step)
    start = min(steps, key=lambda corner: (corner[1], corner[0]))
    corner, direction, outline = start, (0, -1), []
    while steps.get(corner):
        available = steps[corner]
        dx, dy = direction
        # Two pixels that touch at a corner are separate there: turn right if possible.
        step = (-dy, dx) if (-dy, dx) in available else available[0]
        available.remove(step)
        if step != direction:
            outline.append(corner)
        corner, direction = (corner[0] + step[0], corner[1] + step[1]), step
    return outline
