"""Folds of the held-out images: whole groups if the data set names groups, else contiguous blocks.

Neighbouring images, such as video frames, are similar. A random fold would put near copies on both sides, so that the
score on the measured side would be too optimistic.
"""

from collections.abc import Sequence

from densemble.data.folder import FolderData
from densemble.data.splits import group_keys

BLOCKS = 10
"""Number of contiguous parts that two alternating halves consist of."""

Split = tuple[list[int], list[int]]
"""Indices of the images of two parts; in a fold: the images to fit on, and the images to measure on."""


def folds_of(images: Sequence[int], folds: int, groups: Sequence[str | None] | None = None) -> list[Split]:
    """Make folds: each image is measured in exactly one fold and used for fitting in all others.

    Args:
        images: indices of the images, in the order of the data set.
        folds: requested number of folds; fewer if there are fewer images or groups.
        groups: name of the group of each image of the data set, by index; ``None``: no group.

    Returns:
        An empty list if fewer than two parts are possible.
    """
    parts = parts_of(images, folds, groups)
    if len(parts) < 2:
        return []
    return [(sorted(image for other in parts if other is not part for image in other), sorted(part)) for part in parts]


def parts_of(images: Sequence[int], count: int, groups: Sequence[str | None] | None = None) -> list[list[int]]:
    """Make at most ``count`` contiguous, non-empty parts of about equal size; groups stay together."""
    units = _units(images, groups)
    if len(units) < 2:  # a single group is divided
        units = [[image] for image in images]
    if not units:
        return []
    total, requested = sum(len(unit) for unit in units), min(count, len(units))
    if requested == len(units):
        return units
    parts: list[list[int]] = [[] for _ in range(requested)]
    seen = 0
    for unit in units:
        # The part that contains the middle of the unit.
        parts[min(int((seen + len(unit) / 2) * requested / total), requested - 1)].extend(unit)
        seen += len(unit)
    return [part for part in parts if part]


def alternating_halves(images: Sequence[int], groups: Sequence[str | None] | None = None) -> Split:
    """Make two halves of alternating contiguous blocks or groups; the second half is never the larger one."""
    parts = parts_of(images, BLOCKS, groups)
    if len(parts) % 2:  # an even number, so that both halves have as many blocks
        parts = parts_of(images, max(len(parts) - 1, 2), groups)
    first, second = (sorted(image for part in parts[start::2] for image in part) for start in (0, 1))
    return (first, second) if len(first) >= len(second) else (second, first)


def groups_of(data: FolderData) -> list[str | None] | None:
    """Return the group of each validation image; ``None`` if the data set names fewer than two groups."""
    drawn = data.layout.split_by == "seed"
    groups = group_keys(data.val, data.options["group_by"] if drawn else None)
    return groups if len({group for group in groups if group is not None}) > 1 else None


def described(folds: Sequence[Split], groups: Sequence[str | None] | None) -> str:
    """Describe how the folds were made."""
    return f"{len(folds)} folds of {'whole groups' if groups else 'contiguous blocks'} of images"


def _units(images: Sequence[int], groups: Sequence[str | None] | None) -> list[list[int]]:
    if groups is None:
        return [[image] for image in images]
    named: dict[str, list[int]] = {}
    for image in images:
        group = groups[image]
        named.setdefault(f"group {group}" if group is not None else f"image {image}", []).append(image)
    return list(named.values())
