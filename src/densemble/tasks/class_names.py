"""Classes of a task: their names and weights."""

import math
from collections.abc import Sequence
from statistics import median

from densemble.errors import UsageError

_LEAST, _MOST = 0.1, 10.0
HIGHEST_LABEL = 65535
"""Of a class or of what is ignored: label maps are kept as 8 or 16 bits."""


def default_ignore_index(classes: int) -> int:
    """The label that is ignored where nobody says one: 255, or 65535 where 255 is a class."""
    return 255 if classes <= 255 else HIGHEST_LABEL


def balanced_weights(counts: Sequence[int]) -> tuple[float, ...]:
    """A weight per class by median frequency balancing (Eigen & Fergus 2015), between 0.1 and 10.

    The median frequency of the classes that occur, over the class's own; a class that does not occur has weight 1.

    Args:
        counts: pixels of each class.
    """
    present = [count for count in counts if count > 0]
    if not present:
        return (1.0,) * len(counts)
    middle = median(present)
    return tuple(min(max(middle / count, _LEAST), _MOST) if count > 0 else 1.0 for count in counts)


def require_classes(task: str, classes: tuple[str, ...]) -> None:
    """Refuses a task without classes.

    Raises:
        UsageError: there are none.
    """
    if not classes:
        raise UsageError(f"{task} needs the names of its classes; for instance classes=['background', 'road']")


def require_weights(weights: tuple[float, ...] | None, classes: tuple[str, ...], weighted: bool, using: str) -> None:
    """Refuses weights that fit no classes, or that no chosen loss looks at.

    Args:
        weights: one per class, or none.
        classes: names.
        weighted: whether a chosen loss uses weights.
        using: the losses that do, for the message.

    Raises:
        UsageError: another number of them, one that is not positive, or no use for them.
    """
    if weights is None:
        return
    if len(weights) != len(classes):
        raise UsageError(f"{len(weights)} class weights for {len(classes)} classes; give one for each")
    if not all(0 < weight < math.inf for weight in weights):
        raise UsageError(f"class weights must be positive numbers, got {', '.join(f'{w:g}' for w in weights)}")
    if not weighted:
        raise UsageError(f"the chosen loss has no use for class weights; add {using}, or leave class_weights out")
