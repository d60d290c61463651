"""Images of equal size come together for a batch, and none waits for long."""

from collections.abc import Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Groups(Generic[Item]):
    """Collects items by their shape until there are enough for a batch.

    Args:
        batch: items in a full group.
        most: items that may wait at once; one more, and the oldest group goes as it is.
    """

    def __init__(self, batch: int, most: int) -> None:
        self.batch = batch
        self.most = most
        self.waiting = 0
        self._groups: dict[Hashable, list[Item]] = {}  # in the order in which their first items came

    def add(self, shape: Hashable, item: Item) -> list[Item]:
        """Adds an item; returns the group that is due with it, or nothing."""
        group = self._groups.setdefault(shape, [])
        group.append(item)
        self.waiting += 1
        if len(group) == self.batch:
            self.waiting -= len(group)
            return self._groups.pop(shape)
        return self.oldest() if self.waiting > self.most else []

    def oldest(self) -> list[Item]:
        """Takes the group whose first item came first."""
        group = self._groups.pop(next(iter(self._groups)))
        self.waiting -= len(group)
        return group
