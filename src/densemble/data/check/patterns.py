"""What the numbers of a map look like: labels, smoothed labels, or measured values."""

import numpy as np

from densemble.shapes import Array

MANY_LABELS = 100
_HIGHEST_LABEL = 64
VOID = 255
_TOO_FEW = 5
_IN_REGIONS = 0.5
_LEAPS = 0.2
_LEAP = 0.1
_SMOOTHED = 0.1
_FEW = 8
_WHOLE = 1e-3


def count_labels(labels: Array) -> dict[int, int]:
    """Label -> number of its pixels."""
    if not labels.size:
        return {}
    low, high = int(labels.min()), int(labels.max())
    if high - low > 1 << 20:
        values, counts = np.unique(labels, return_counts=True)
        return dict(zip(values.tolist(), counts.tolist(), strict=True))
    counts = np.bincount((labels - low).ravel())
    return {int(place) + low: int(counts[place]) for place in np.flatnonzero(counts)}


def look_like_labels(values: Array, highest: int = 2) -> bool:
    """Whether values ``(H, W)`` are labels: regions of few small whole numbers that leap from pixel to pixel.

    A dark map of heat holds few small whole numbers too, but it passes from each to one near it; not more than five in
    all can be no heat. Single pixels are counts of points. 255 counts as void where it occurs.

    Args:
        values: as they are stored.
        highest: that the highest label must reach.
    """
    void = values == VOID
    some = values[~void]
    if not some.size or not np.isfinite(some).all() or not highest <= some.max() <= _HIGHEST_LABEL or some.min() < 0:
        return False
    if np.abs(some - np.rint(some)).max() > _WHOLE:
        return False
    whole = np.rint(np.where(void, 0, values)).astype(np.int64)
    if not _lies_in_regions(whole):
        return False
    if len(np.unique(whole[~void])) <= _TOO_FEW:
        return True
    steps = np.concatenate([_steps(whole, void, axis) for axis in (0, 1)])
    return steps.size > 0 and (steps > 1).mean() >= _LEAPS and steps.mean() >= _LEAP * whole.max()


def _steps(whole: Array, void: Array, axis: int) -> Array:
    """Differences between pixels beside each other that differ, void ones left out."""
    steps = np.abs(np.diff(whole, axis=axis))
    beside_void = np.diff(void.astype(np.int8), axis=axis) != 0
    found: Array = steps[(steps > 0) & ~beside_void]
    return found


def _lies_in_regions(whole: Array) -> bool:
    """Whether most pixels above 0 have a neighbour that is equal."""
    alike = np.zeros(whole.shape, bool)
    for first, second in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        equal = whole[first] == whole[second]
        alike[first] |= equal
        alike[second] |= equal
    return bool(alike[whole > 0].mean() >= _IN_REGIONS)


def are_smoothed(labels: Array) -> bool:
    """Whether the borders of labels ``(H, W)`` were smoothed: single pixels between the two labels beside them.

    Drawing with antialiasing, resizing by bilinear interpolation and JPEG all leave them.
    """
    if min(labels.shape) < 3 or len(count_labels(labels)) < _FEW:
        return False
    inside = labels[1:-1, 1:-1]
    beside = np.stack([labels[:-2, 1:-1], labels[2:, 1:-1], labels[1:-1, :-2], labels[1:-1, 2:]])
    border = (beside != inside).any(0)
    alone = (beside != inside).sum(0) >= 3
    between = alone & (inside > beside.min(0)) & (inside < beside.max(0))
    return bool(between.sum() > _SMOOTHED * max(int(border.sum()), 1))


def gaps(labels: set[int]) -> dict[int, int]:
    """The shortest label map that leaves no gaps: empty where at least half of the numbers up to the highest occur."""
    if not labels or 2 * len(labels) > max(labels) + 1:
        return {}
    return {label: number for number, label in enumerate(sorted(labels)) if label != number}
