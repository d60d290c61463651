"""SizeGroups: images of equal size are collected for a batch, and none waits for long."""

from collections.abc import Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class SizeGroups(Generic[Item]):
    """Collects items by shape until there are enough for a batch.

    Args:
        batch: number of items in a full group.
        most: most items that wait at once; with one more, the oldest group is returned although it is not full.
    """

    def __init__(self, batch: int, most: int) -> None:
        self.batch = batch
        self.most = most
        self.waiting = 0
        self._groups: dict[Hashable, list[Item]] = {}  # in the order of their first items

    def add(self, shape: Hashable, item: Item) -> list[Item]:
        """Add an item; return the group that is now complete, or an empty list."""
        group = self._groups.setdefault(shape, [])
        group.append(item)
        self.waiting += 1
        if len(group) == self.batch:
            self.waiting -= len(group)
            return self._groups.pop(shape)
        return self.oldest() if self.waiting > self.most else []

    def oldest(self) -> list[Item]:
        """Remove and return the group with the oldest first item."""
        group = self._groups.pop(next(iter(self._groups)))
        self.waiting -= len(group)
        return group
