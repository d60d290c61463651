"""Class names that are asked for against those that a data set says: numbers follow the names, in whatever order."""

from collections.abc import Mapping, Sequence

from densemble.data.layouts import Layout
from densemble.data.layouts.class_names import class_key, require_distinct
from densemble.data_options import LabelMap
from densemble.errors import DataError

NO_CLASS = -1
"""Number of a region that belongs to no class: a drawn background that nobody asks for."""


def numbers_by_name(
    asked: Sequence[str],
    own: Sequence[str],
    where: object,
    mapped: Mapping[int, int] | None = None,
    without_background: bool = False,
) -> dict[int, int]:
    """The number of each of a data set's classes among those asked for.

    Args:
        asked: names in the order of their numbers. Mere numbers (``0``, ``1``, ...) name nothing: they keep theirs.
        own: names that the data set says, in the order of its numbers.
        where: the data set, for messages.
        mapped: class number of the data set -> number asked for, where that needs no name.
        without_background: whether the background may be left out; it becomes ``NO_CLASS``.

    Raises:
        DataError: names that one side has and the other has not, or a name that stands twice.
    """
    for names in (asked, own):
        require_distinct(names, where)
    if len(asked) == len(own) and (_are_numbers(asked) or _are_numbers(own)):
        return {number: number for number in range(len(own))}
    numbers = {class_key(name): number for number, name in enumerate(asked)}
    keys = [class_key(name) for name in own]
    by_hand = mapped or {}
    unasked = [name for number, name in enumerate(own) if keys[number] not in numbers and number not in by_hand]
    if without_background and unasked and class_key(unasked[0]) == "background":
        unasked = unasked[1:]
    known = {*keys, *(class_key(asked[number]) for number in by_hand.values() if 0 <= number < len(asked))}
    unknown = [name for name in asked if class_key(name) not in known]
    if unasked or unknown:
        sides = [f"not asked for: {', '.join(unasked)}"] if unasked else []
        sides += [f"not in the data: {', '.join(unknown)}"] if unknown else []
        example = f"--set 'data.label_map={{{unasked[0] if unasked else own[-1]}: CLASS}}' (255: none)"
        raise DataError(
            f"the classes asked for are {', '.join(asked)}, those of '{where}' are {', '.join(own)} "
            f"({', '.join(sides)}); name the same classes, in any order"
            + ("" if mapped is None else f", or say which class a label becomes: {example}")
        )
    asked_for = {number: numbers.get(key, NO_CLASS) for number, key in enumerate(keys)}
    return {number: new for number, new in asked_for.items() if new != NO_CLASS or number not in by_hand}


def _are_numbers(names: Sequence[str]) -> bool:
    return list(names) == [str(number) for number in range(len(names))]


def label_map_by_name(
    found: Layout,
    own: Sequence[str] | None,
    asked: Sequence[str] | None,
    given: LabelMap | None,
    ignore_index: int,
    without_background: bool = False,
) -> dict[int, int] | None:
    """Label in the files -> number of the class that is asked for; ``None`` where all stay as they are.

    Args:
        found: the data set.
        own: names of its classes, if it says any.
        asked: names that are asked for; ``None``: its own.
        given: ``data.label_map``, which goes before the names.
        ignore_index: label that the task ignores; the data set's own is turned into it.
        without_background: see :func:`numbers_by_name`.

    Raises:
        DataError: names that do not fit.
    """
    said = plain_label_map(given or {}, own, asked, found.path)
    if given is not None and found.label_map is not None:
        return said  # every label of the files is said anew
    numbers = numbers_by_name(asked, own, found.path, said, without_background) if asked and own else {}
    if found.ignore_index is not None:
        numbers[found.ignore_index] = ignore_index
    files = found.label_map if found.label_map is not None else {label: label for label in numbers}
    turned = {label: numbers.get(number, number) for label, number in files.items()}
    turned = {label: number for label, number in (turned | said).items() if label != number}
    return turned or None


def plain_label_map(
    given: LabelMap, own: Sequence[str] | None, asked: Sequence[str] | None, where: object
) -> dict[int, int]:
    """``data.label_map`` in numbers.

    Raises:
        DataError: a name that is no class.
    """

    def number(label: int | str, names: Sequence[str]) -> int:
        if isinstance(label, int) or label.removeprefix("-").isdecimal():
            return int(label)
        keys = [class_key(name) for name in names]
        if class_key(label) not in keys:
            there = f"those of '{where}' are {', '.join(names)}" if names else f"'{where}' names none"
            raise DataError(f"data.label_map: no class is named '{label}'; {there}: write one of them, or a number")
        return keys.index(class_key(label))

    return {number(old, own or ()): number(new, asked or own or ()) for old, new in given.items()}


def named_label_map(
    given: LabelMap, own: Sequence[str] | None, asked: Sequence[str] | None, where: object
) -> dict[str, int | str]:
    """``data.label_map`` in names as far as there are any: it then holds for a data set of another order too."""

    def name(number: int, names: Sequence[str]) -> int | str:
        known = 0 <= number < len(names) and not names[number].removeprefix("-").isdecimal()
        return names[number] if known else number

    numbers = plain_label_map(given, own, asked, where)
    return {str(name(old, own or ())): name(new, asked or own or ()) for old, new in numbers.items()}


def order_by_name(
    own: Sequence[str] | None, asked: Sequence[str] | None, where: object, without_background: bool = False
) -> tuple[int, ...] | None:
    """Channel in the files of each class that is asked for; ``None`` where that is their order.

    Raises:
        DataError: names that do not fit.
    """
    if not own or not asked:
        return None
    return reordered(None, numbers_by_name(asked, own, where, None, without_background))


def reordered(order: Sequence[int] | None, numbers: Mapping[int, int]) -> tuple[int, ...] | None:
    """An order of channels after its classes get other numbers; ``None`` where that is the order of the files."""
    before = range(len(numbers)) if order is None else order
    places = {numbers[number]: channel for number, channel in enumerate(before)}
    after = tuple(places[number] for number in sorted(places) if number != NO_CLASS)
    return None if after == tuple(range(len(numbers))) and order is None else after
