"""Folds of the held-out images: whole groups where the data set names groups, else contiguous blocks.

Neighbouring images, such as frames of a film, resemble one another. A random fold would put near copies on both sides,
and what was fitted on one side would look better on the other than it is.
"""

from collections.abc import Sequence

from densemble.data.folder import FolderData
from densemble.data.splits import group_keys

BLOCKS = 10
"""Contiguous parts that two alternating halves are made of."""

Split = tuple[list[int], list[int]]
"""Numbers of the images of two parts; of a fold: to fit on, and to measure on."""


def folds_of(images: Sequence[int], folds: int, groups: Sequence[str | None] | None = None) -> list[Split]:
    """Each image is measured in exactly one fold and used for fitting in all others.

    Args:
        images: their numbers, in the order of the data set.
        folds: wanted; fewer where there are fewer images or groups.
        groups: name of the group of each image of the data set, by number; ``None``: no group.

    Returns:
        Empty where fewer than two parts can be made.
    """
    parts = parts_of(images, folds, groups)
    if len(parts) < 2:
        return []
    return [(sorted(image for other in parts if other is not part for image in other), sorted(part)) for part in parts]


def parts_of(images: Sequence[int], count: int, groups: Sequence[str | None] | None = None) -> list[list[int]]:
    """Up to ``count`` contiguous parts of about equal size, none empty; groups are not divided."""
    units = _units(images, groups)
    if len(units) < 2:  # one group: it has to be divided
        units = [[image] for image in images]
    if not units:
        return []
    total, wanted = sum(len(unit) for unit in units), min(count, len(units))
    if wanted == len(units):
        return units
    parts: list[list[int]] = [[] for _ in range(wanted)]
    seen = 0
    for unit in units:
        # The part that the middle of the unit lies in.
        parts[min(int((seen + len(unit) / 2) * wanted / total), wanted - 1)].extend(unit)
        seen += len(unit)
    return [part for part in parts if part]


def alternating_halves(
    images: Sequence[int], groups: Sequence[str | None] | None = None
) -> tuple[list[int], list[int]]:
    """Two halves of alternating contiguous blocks, or of groups; the second is the smaller one where they differ."""
    parts = parts_of(images, BLOCKS, groups)
    if len(parts) % 2:  # so that neither half gets a block more
        parts = parts_of(images, max(len(parts) - 1, 2), groups)
    first, second = (sorted(image for part in parts[start::2] for image in part) for start in (0, 1))
    return (first, second) if len(first) >= len(second) else (second, first)


def groups_of(data: FolderData) -> list[str | None] | None:
    """Group of each validation image, as its split was made; ``None`` where fewer than two groups are named."""
    drawn = data.layout.split_by == "seed"
    groups = group_keys(data.val, data.options["group_by"] if drawn else None)
    return groups if len({group for group in groups if group is not None}) > 1 else None


def described(folds: Sequence[Split], groups: Sequence[str | None] | None) -> str:
    """How the folds were made, for a reader."""
    return f"{len(folds)} folds of {'whole groups' if groups else 'contiguous blocks'} of images"


def _units(images: Sequence[int], groups: Sequence[str | None] | None) -> list[list[int]]:
    if groups is None:
        return [[image] for image in images]
    named: dict[str, list[int]] = {}
    for image in images:
        group = groups[image]
        named.setdefault(f"group {group}" if group is not None else f"image {image}", []).append(image)
    return list(named.values())
