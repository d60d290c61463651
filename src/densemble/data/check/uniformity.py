"""Whether the files of a set go together: channels, depth, sizes, palettes, and the task they were made for."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from densemble.data.check.labels import MEASURED, hold_labels
from densemble.data.check.problems import Problem, Severity
from densemble.data.check.seen import Seen, SeenMap, SeenValues
from densemble.data.check.subject import Checkable
from densemble.data.heat_scale import WHOLE_LIMITS, number_type
from densemble.data.read_pairs import is_point_table
from densemble.tasks import TASKS

_VARYING = 8
_METRES = 1000
_CROWDED = 0.05
_MANY_ZEROS = 0.01
_TWELVE_BITS = 4096


def judge_uniformity(data: Checkable, seen: Sequence[Seen]) -> Iterator[Problem]:
    """What is wrong with the set as a whole, though each of its files may be right."""
    yield from _images(data, seen)
    mapped = [(one, one.map) for one in seen if one.map is not None]
    channels = Counter(found.channels for _, found in mapped)
    usual = channels.most_common(1)[0][0] if channels else 0
    for one, found in mapped:
        if found.channels != usual:
            message = f"'{one.sample.target}' has {found.channels} channels, most maps have {usual}"
            file = str(one.sample.target)
            yield Problem("mixed maps", file, message, "make all maps with as many", split=one.split, pair=one.name)
    yield from _palettes([(one, found) for one, found in mapped if found.palette is not None])
    yield from _meaning(data, mapped)


def _images(data: Checkable, seen: Sequence[Seen]) -> Iterator[Problem]:
    images = [(one, one.image) for one in seen if one.image is not None]
    if not images:
        return
    channels = Counter(image.channels for _, image in images)
    usual, fewest = channels.most_common(1)[0][0], min(channels)
    remedy = f"choose channels that all have: --set 'data.bands={list(range(fewest))}'"
    for one, image in images:
        if image.channels != usual:
            message = f"'{one.sample.image}' has {image.channels} channels, most images have {usual}"
            file = str(one.sample.image)
            yield Problem("mixed channels", file, message, remedy, split=one.split, pair=one.name)
    depths = Counter(image.depth for _, image in images)
    if len(depths) > 1:
        counted = ", ".join(f"{count} {depth}" for depth, count in depths.most_common())
        message = f"images have different depths: {counted}; the same scene may be darker in one than in another"
        remedy = "save all in one depth, or set what is 0 and 1: --set data.image_range=[LOW, HIGH]"
        yield Problem("mixed depths", str(data.path), message, remedy, "warning")
    highest = max((image.highest for _, image in images if image.depth == "uint16"), default=0)
    if 0 < highest < _TWELVE_BITS and data.reading.options["image_range"] is None:
        remedy = f"say which numbers are black and white: --set 'data.image_range=[0, {_all_bits(highest)}]'"
        yield _few_bits(data, f"the 16-bit images reach {highest:g} of 65535", remedy)
    sides = [max(image.size) for _, image in images]
    if max(sides) > _VARYING * min(sides):
        message = f"images are from {min(sides)} to {max(sides)} pixels long; all are resized to one size"
        remedy = "cut the large ones into pieces, or choose a size for most: --set input_size=HEIGHTxWIDTH"
        yield Problem("sizes vary", str(data.path), message, remedy, "warning")


_MEANT = {
    "values": "; where values are meant, name their unit: --set data.unit=UNIT",
    "heat": "; where heat is meant, name the value that counts as 1: --set data.heat_max=VALUE",
    "density": "; where counts are meant, name their unit: --set data.unit=objects",
}


def _few_bits(data: Checkable, what: str, remedy: str) -> Problem:
    message = f"{what}: they seem to hold 12 bits or less, and none of their values is above {_TWELVE_BITS / 65536:.4f}"
    return Problem("few of 16 bits", str(data.path), message, remedy, "warning")


def _all_bits(highest: float) -> int:
    """The largest whole number of as many bits."""
    return max((1 << int(highest).bit_length()) - 1, 255)


def _palettes(mapped: Sequence[tuple[Seen, SeenMap]]) -> Iterator[Problem]:
    """Two files in which one label has two colours; where a colour also has two labels, one of the files is wrong."""
    colour_of: dict[int, bytes] = {}
    label_of: dict[bytes, int] = {}
    first: dict[int, Seen] = {}
    for one, found in mapped:
        used = [label for label in found.labels or {} if 0 <= 3 * label < len(found.palette or b"")]
        colours = {label: (found.palette or b"")[3 * label : 3 * label + 3] for label in used}
        other = [label for label, colour in colours.items() if colour_of.get(label, colour) != colour]
        moved = [label for label, colour in colours.items() if label_of.get(colour, label) != label]
        if other:
            label = (moved or other)[0]
            before = colour_of.get(label, label.to_bytes(3, "big"))
            earlier = first.get(label, one).sample.target
            message = (
                f"label {label} is #{colours[label].hex()} in '{one.sample.target}', "
                f"but #{before.hex()} in '{earlier}': their palettes differ"
            )
            remedy = (
                "read the colours instead of the numbers: --set data.color_map=FILE with lines red,green,blue,name; "
                "or save the masks with one palette"
            )
            severity: Severity = "error" if moved else "warning"
            file = str(one.sample.target)
            yield Problem("palettes differ", file, message, remedy, severity, one.split, partner=str(earlier))
        for label, colour in colours.items():
            colour_of.setdefault(label, colour)
            label_of.setdefault(colour, label)
            first.setdefault(label, one)


def _scale(data: Checkable, files: Sequence[Path], highest: float) -> Iterator[Problem]:
    """Whether what counts as 1 is likely: ``highest`` is of all maps."""
    types = set() if data.reading.options["heat_max"] == {} else {number_type(file) for file in files}
    if types == {"uint16"} and 0 < highest < _TWELVE_BITS / 65535:
        stored = highest * 65535
        if data.reading.kind == "pixels" and data.reading.options["image_range"] is None:
            remedy = f"say which numbers are black and white: --set 'data.image_range=[0, {_all_bits(stored)}]'"
            yield _few_bits(data, f"the 16-bit maps reach {stored:.0f} of 65535", remedy)
        elif data.reading.kind == "heat" and isinstance(data.reading.options["heat_max"], Mapping):
            remedy = f"say which number counts as 1: --set data.heat_max={_all_bits(stored)}"
            yield _few_bits(data, f"the 16-bit maps reach {stored:.0f} of 65535", remedy)
    decided = data.reading.options["heat_max"]
    full = decided.get("float", 1.0) if isinstance(decided, Mapping) else 1.0
    if isinstance(decided, Mapping) and full not in WHOLE_LIMITS:
        message = f"maps of floats reach {full:g}, which counts as 1 in all of them"
        pairs = ", ".join(f"{name}: {value}" for name, value in decided.items())
        flag = f"'data.heat_max={{{pairs}}}'" if len(decided) > 1 else f"data.heat_max={full}"
        remedy = f"save them in 0 to 1; or say which value counts as 1: --set {flag}"
        yield Problem("heat above 1", str(data.path), message, remedy, "warning")


def _validity(data: Checkable, values: Sequence[SeenValues]) -> Iterator[Problem]:
    """Numbers that may be meant or may stand for nothing."""
    pixels = sum(one.pixels for one in values)
    negative, zeros = sum(one.negative for one in values) / pixels, sum(one.zeros for one in values) / pixels
    if negative and data.invalid_below == 0:
        message = f"{negative:.1%} of the values are negative and count as invalid"
        remedy = "where they are meant say --set data.invalid_below=null, else write 0 or NaN"
        yield Problem("negative values", str(data.path), message, remedy, "warning")
    elif (
        zeros > _MANY_ZEROS and not negative and data.options["invalid_below"] == "auto" and data.invalid_below is None
    ):
        message = f"{zeros:.1%} of the values are 0 and count as valid"
        remedy = (
            "where 0 stands for nothing say --set data.invalid_below=0; where it is meant --set data.invalid_below=null"
        )
        yield Problem("zeros", str(data.path), message, remedy, "warning")


def _meaning(data: Checkable, mapped: Sequence[tuple[Seen, SeenMap]]) -> Iterator[Problem]:
    """Maps that seem to be made for another task or in another unit."""
    here, kind = str(data.path), data.reading.kind
    values = [found.values for _, found in mapped if found.values is not None and found.values.valid]
    if kind in MEASURED and hold_labels(data, [one for one, _ in mapped]):
        message = f"the maps hold few small whole numbers, like labels of classes: they are no {kind}"
        remedy = "choose the task that they are for: --task segmentation"
        remedy += _MEANT[kind]
        yield Problem(f"labels as {kind}", here, message, remedy)
    elif TASKS[data.task_name].in_metres and data.scale == 1 and not data.options.get("unit") and values:
        highest = max(one.high for one in values)
        if highest > _METRES:
            message = f"depths reach {highest:g}, and no unit is said: they look like millimetres"
            remedy = "for metres --set data.scale=0.001 --set data.unit=m, or say that it is meant: --set data.unit=mm"
            yield Problem("unit", here, message, remedy, "warning")
    elif kind in ("heat", "pixels") and values:
        yield from _scale(data, [one.sample.target for one, _ in mapped], max(one.high for one in values))
    if kind == "values" and values:
        yield from _validity(data, values)
    if kind == "density":
        drawn = [found for one, found in mapped if not is_point_table(one.sample.target) and found.values is not None]
        crowd = [float(one.points or 0) / one.values.pixels for one in drawn if one.values is not None]
        if crowd and float(np.median(crowd)) > _CROWDED:
            message = f"densities sum up to {np.median(crowd):.2g} objects per pixel: they seem to be scaled"
            remedy = "the sum of a map must be a count: --set data.scale=FACTOR, or save it as TIFF or NPY of floats"
            yield Problem("scaled densities", here, message, remedy, "warning")
    own = sum(problem.kind == "target is its image" for one, _ in mapped for problem in one.problems)
    if own and own == len(mapped):
        message, remedy = "every map is its own image", "put what is to be made of the images into the other folder"
        yield Problem("targets are the images", here, message, remedy)
