"""Reads a data set with the class numbers of another data set or of a network."""

from collections.abc import Sequence
from dataclasses import replace

from densemble.data.class_order import numbers_by_name, reordered
from densemble.data.read_pairs import Reading


def renumbered(reading: Reading, source: object, names: Sequence[str], ignored: int, labelled: bool) -> Reading:
    """A reading with other class numbers and another ignored label; classes are matched by name.

    Args:
        reading: reading of a data set; if it has no class names, the numbers stay.
        source: the data set, for messages.
        names: class names in the order of the new numbers.
        ignored: the new ignored label.
        labelled: whether the files or drawings contain class numbers, as label maps do.

    Raises:
        DataError: only one of the two has a class.
    """
    numbers = {number: number for number in range(len(names))}
    channels = len(names)
    if reading.classes is not None:
        numbers = numbers_by_name(names, reading.classes, source, None, reading.kind == "masks")
        channels = reading.channels
    after = replace(reading, classes=tuple(names), channels=channels, ignore_index=ignored)
    if not labelled:
        return replace(after, order=reordered(reading.order, numbers))
    if ignored != reading.ignore_index:
        numbers[reading.ignore_index] = ignored
    label_map = {label: label for label in numbers} | (reading.label_map or {})
    label_map = {label: numbers.get(number, number) for label, number in label_map.items()}
    return replace(after, label_map={label: number for label, number in label_map.items() if label != number} or None)
