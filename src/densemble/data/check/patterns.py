"""Recognizes labels, smoothed labels and measured values by their numbers."""

import numpy as np

from densemble.shapes import Array

MANY_LABELS = 100
_HIGHEST_LABEL = 64
VOID = 255
_FEW_LABELS = 5
_REGION_SHARE = 0.5
_JUMP_SHARE = 0.2
_MEAN_JUMP = 0.1
_SMOOTHED_SHARE = 0.1
_LEAST_SMOOTHED_LABELS = 8
_WHOLE_TOLERANCE = 1e-3


def count_labels(labels: Array) -> dict[int, int]:
    """Number of pixels by label."""
    if not labels.size:
        return {}
    low, high = int(labels.min()), int(labels.max())
    if high - low > 1 << 20:
        values, counts = np.unique(labels, return_counts=True)
        return dict(zip(values.tolist(), counts.tolist(), strict=True))
    counts = np.bincount((labels - low).ravel())
    return {int(index) + low: int(counts[index]) for index in np.flatnonzero(counts)}


def look_like_labels(values: Array, highest: int = 2) -> bool:
    """Whether values ``(H, W)`` are labels: regions of few small whole numbers, with jumps between the regions.

    A dark heat map holds few small whole numbers too, but its neighbouring values differ little. Five different values
    or less are always labels. Isolated pixels are counts of points, not labels. 255 counts as void.

    Args:
        values: stored values.
        highest: lower limit of the highest label.
    """
    void = values == VOID
    known = values[~void]
    if not known.size or not np.isfinite(known).all() or known.min() < 0:
        return False
    if not highest <= known.max() <= _HIGHEST_LABEL or np.abs(known - np.rint(known)).max() > _WHOLE_TOLERANCE:
        return False
    whole = np.rint(np.where(void, 0, values)).astype(np.int64)
    if not _lies_in_regions(whole):
        return False
    if len(np.unique(whole[~void])) <= _FEW_LABELS:
        return True
    steps = np.concatenate([_steps(whole, void, axis) for axis in (0, 1)])
    return steps.size > 0 and (steps > 1).mean() >= _JUMP_SHARE and steps.mean() >= _MEAN_JUMP * whole.max()


def _steps(whole: Array, void: Array, axis: int) -> Array:
    """Absolute differences between neighbouring pixels, without zeros and without void pixels."""
    steps = np.abs(np.diff(whole, axis=axis))
    beside_void = np.diff(void.astype(np.int8), axis=axis) != 0
    nonzero: Array = steps[(steps > 0) & ~beside_void]
    return nonzero


def _lies_in_regions(whole: Array) -> bool:
    """Whether most pixels above 0 have an equal neighbour."""
    has_equal_neighbour = np.zeros(whole.shape, bool)
    for first, second in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        equal = whole[first] == whole[second]
        has_equal_neighbour[first] |= equal
        has_equal_neighbour[second] |= equal
    return bool(has_equal_neighbour[whole > 0].mean() >= _REGION_SHARE)


def are_smoothed(labels: Array) -> bool:
    """Whether the borders of labels ``(H, W)`` are smoothed: isolated pixels have values between their neighbours.

    Antialiasing, bilinear resizing and JPEG compression all leave such pixels.
    """
    if min(labels.shape) < 3 or len(count_labels(labels)) < _LEAST_SMOOTHED_LABELS:
        return False
    inside = labels[1:-1, 1:-1]
    beside = np.stack([labels[:-2, 1:-1], labels[2:, 1:-1], labels[1:-1, :-2], labels[1:-1, 2:]])
    border = (beside != inside).any(0)
    alone = (beside != inside).sum(0) >= 3
    between = alone & (inside > beside.min(0)) & (inside < beside.max(0))
    return bool(between.sum() > _SMOOTHED_SHARE * max(int(border.sum()), 1))


def gaps(labels: set[int]) -> dict[int, int]:
    """The smallest label map that removes gaps; empty if at least half of the numbers up to the highest label occur."""
    if not labels or 2 * len(labels) > max(labels) + 1:
        return {}
    return {label: number for number, label in enumerate(sorted(labels)) if label != number}
