"""Reading a data set with the class numbers of another one, or of a network."""

from collections.abc import Sequence
from dataclasses import replace

from densemble.data.class_order import numbers_by_name, reordered
from densemble.data.read_pairs import Reading


def renumbered(reading: Reading, where: object, names: Sequence[str], ignored: int, labelled: bool) -> Reading:
    """The same reading with other class numbers and another ignored label; classes are matched by name.

    Args:
        reading: of a data set; where it has no names of classes, their numbers stay.
        where: the data set, for messages.
        names: in the order of the new numbers.
        ignored: the new ignored label.
        labelled: whether its files or drawings number the classes, as label maps do.

    Raises:
        DataError: classes that only one side has.
    """
    numbers = {number: number for number in range(len(names))}
    channels = len(names)
    if reading.classes is not None:
        numbers = numbers_by_name(names, reading.classes, where, None, reading.kind == "masks")
        channels = reading.channels
    after = replace(reading, classes=tuple(names), channels=channels, ignore_index=ignored)
    if not labelled:
        return replace(after, order=reordered(reading.order, numbers))
    if ignored != reading.ignore_index:
        numbers[reading.ignore_index] = ignored
    turned = {label: label for label in numbers} | (reading.label_map or {})
    turned = {label: numbers.get(number, number) for label, number in turned.items()}
    return replace(after, label_map={label: number for label, number in turned.items() if label != number} or None)
