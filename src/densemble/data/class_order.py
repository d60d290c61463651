"""Matches requested class names with the class names of a data set, so that class numbers follow the names."""

from collections.abc import Mapping, Sequence

from densemble.data.layouts import Layout
from densemble.data.layouts.class_names import class_key, require_distinct
from densemble.data_options import LabelMap
from densemble.errors import DataError

NO_CLASS = -1
"""Number of a region that belongs to no class: a drawn background that is not requested."""


def numbers_by_name(
    requested: Sequence[str],
    available: Sequence[str],
    source: object,
    mapped: Mapping[int, int] | None = None,
    without_background: bool = False,
) -> dict[int, int]:
    """Requested class number by class number of the data set.

    Args:
        requested: names in the order of their numbers. If all names are numbers (``0``, ``1``, ...), the class
            numbers do not change.
        available: names of the data set in the order of its numbers.
        source: the data set, for messages.
        mapped: requested number by number of the data set, for classes that need no match by name.
        without_background: whether the background may be absent from the request; it becomes ``NO_CLASS``.

    Raises:
        DataError: only one side has a name, or a name occurs twice.
    """
    for names in (requested, available):
        require_distinct(names, source)
    if len(requested) == len(available) and (_are_numbers(requested) or _are_numbers(available)):
        return {number: number for number in range(len(available))}
    numbers = {class_key(name): number for number, name in enumerate(requested)}
    keys = [class_key(name) for name in available]
    mapped_numbers = mapped or {}
    not_requested = [
        name
        for number, (name, key) in enumerate(zip(available, keys, strict=True))
        if key not in numbers and number not in mapped_numbers
    ]
    if without_background and not_requested and class_key(not_requested[0]) == "background":
        not_requested = not_requested[1:]
    mapped_names = (requested[number] for number in mapped_numbers.values() if 0 <= number < len(requested))
    known = {*keys, *(class_key(name) for name in mapped_names)}
    missing = [name for name in requested if class_key(name) not in known]
    if not_requested or missing:
        differences = [f"not requested: {', '.join(not_requested)}"] if not_requested else []
        differences += [f"not in the data: {', '.join(missing)}"] if missing else []
        example = (
            f"--set 'data.label_map={{{not_requested[0] if not_requested else available[-1]}: CLASS}}' (255: none)"
        )
        raise DataError(
            f"the requested classes are {', '.join(requested)}, those of '{source}' are {', '.join(available)} "
            f"({', '.join(differences)}); name the same classes, in any order"
            + ("" if mapped is None else f", or set which class a label becomes: {example}")
        )
    new_numbers = {number: numbers.get(key, NO_CLASS) for number, key in enumerate(keys)}
    return {number: new for number, new in new_numbers.items() if new != NO_CLASS or number not in mapped_numbers}


def _are_numbers(names: Sequence[str]) -> bool:
    return list(names) == [str(number) for number in range(len(names))]


def label_map_by_name(
    layout: Layout,
    available: Sequence[str] | None,
    requested: Sequence[str] | None,
    given: LabelMap | None,
    ignore_index: int,
    without_background: bool = False,
) -> dict[int, int] | None:
    """Requested class number by label in the files; ``None`` if no label changes.

    Args:
        layout: the data set.
        available: names of its classes, if it has names.
        requested: requested names; ``None`` requests the names of the data set.
        given: ``data.label_map``, which has priority over the names.
        ignore_index: ignored label of the task; the ignored label of the data set becomes this label.
        without_background: see :func:`numbers_by_name`.

    Raises:
        DataError: the names do not match.
    """
    given_numbers = plain_label_map(given or {}, available, requested, layout.path)
    if given is not None and layout.label_map is not None:
        return given_numbers  # it replaces the label map of the layout
    numbers: dict[int, int] = {}
    if requested and available:
        numbers = numbers_by_name(requested, available, layout.path, given_numbers, without_background)
    if layout.ignore_index is not None:
        numbers[layout.ignore_index] = ignore_index
    label_map = layout.label_map if layout.label_map is not None else {label: label for label in numbers}
    new_numbers = {label: numbers.get(number, number) for label, number in label_map.items()} | given_numbers
    return {label: number for label, number in new_numbers.items() if label != number} or None


def plain_label_map(
    given: LabelMap, available: Sequence[str] | None, requested: Sequence[str] | None, source: object
) -> dict[int, int]:
    """``data.label_map`` with numbers instead of names.

    Raises:
        DataError: a name is no class.
    """

    def number(label: int | str, names: Sequence[str]) -> int:
        if isinstance(label, int) or label.removeprefix("-").isdecimal():
            return int(label)
        keys = [class_key(name) for name in names]
        if class_key(label) not in keys:
            classes = f"those of '{source}' are {', '.join(names)}" if names else f"'{source}' names none"
            raise DataError(f"data.label_map: no class is named '{label}'; {classes}: write one of them, or a number")
        return keys.index(class_key(label))

    return {number(old, available or ()): number(new, requested or available or ()) for old, new in given.items()}


def named_label_map(
    given: LabelMap, available: Sequence[str] | None, requested: Sequence[str] | None, source: object
) -> dict[str, int | str]:
    """``data.label_map`` with names if there are any, so that it is valid for a data set with another order too."""

    def name(number: int, names: Sequence[str]) -> int | str:
        known = 0 <= number < len(names) and not names[number].removeprefix("-").isdecimal()
        return names[number] if known else number

    numbers = plain_label_map(given, available, requested, source)
    return {str(name(old, available or ())): name(new, requested or available or ()) for old, new in numbers.items()}


def reordered(order: Sequence[int] | None, numbers: Mapping[int, int]) -> tuple[int, ...] | None:
    """The order of channels after a change of class numbers; ``None`` if it is the order of the files."""
    before = range(len(numbers)) if order is None else order
    channels = {numbers[number]: channel for number, channel in enumerate(before)}
    after = tuple(channels[number] for number in sorted(channels) if number != NO_CLASS)
    return None if after == tuple(range(len(numbers))) and order is None else after
