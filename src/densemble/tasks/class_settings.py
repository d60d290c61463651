"""Names and weights of the classes of a task."""

import math
from collections.abc import Sequence
from statistics import median

from densemble.errors import UsageError
from densemble.tasks.losses.mixture import LossTerms

_LEAST, _MOST = 0.1, 10.0
HIGHEST_LABEL = 65535
"""Largest label, of a class or ignored: label maps are stored with 8 or 16 bits."""


def default_ignore_index(classes: int) -> int:
    """Return the default ignored label: 255, or 65535 if 255 is a class."""
    return 255 if classes <= 255 else HIGHEST_LABEL


def balanced_weights(counts: Sequence[int]) -> tuple[float, ...]:
    """Compute a weight per class by median frequency balancing (Eigen & Fergus 2015), between 0.1 and 10.

    The weight is the median frequency of the classes that occur, divided by the frequency of the class; it is 1 for a
    class that does not occur.

    Args:
        counts: number of pixels of each class.
    """
    present = [count for count in counts if count > 0]
    if not present:
        return (1.0,) * len(counts)
    middle = median(present)
    return tuple(min(max(middle / count, _LEAST), _MOST) if count > 0 else 1.0 for count in counts)


def require_classes(task: str, classes: tuple[str, ...]) -> None:
    """Check that a task has classes.

    Raises:
        UsageError: it has none.
    """
    if not classes:
        raise UsageError(f"{task} needs the names of its classes; for instance classes=['background', 'road']")


def require_weights(
    weights: tuple[float, ...] | None, classes: tuple[str, ...], losses: LossTerms, weighted: tuple[str, ...]
) -> None:
    """Check that class weights match the classes and that a selected loss uses them.

    Args:
        weights: one per class, or ``None``.
        classes: names.
        losses: weight and name of each selected loss.
        weighted: names of the losses that use class weights.

    Raises:
        UsageError: the number of weights is wrong, one is not positive, or no selected loss uses them.
    """
    if weights is None:
        return
    if len(weights) != len(classes):
        raise UsageError(f"{len(weights)} class weights for {len(classes)} classes; give one for each")
    if not all(0 < weight < math.inf for weight in weights):
        raise UsageError(f"class weights must be positive numbers, got {', '.join(f'{w:g}' for w in weights)}")
    if not any(name in weighted for _, name in losses):
        raise UsageError(
            f"the selected loss does not use class weights; add {' or '.join(weighted)}, or leave class_weights out"
        )
