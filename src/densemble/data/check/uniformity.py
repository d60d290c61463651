"""Checks that the files of a data set fit together: channels, depth, sizes, palettes, unit and task."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from densemble.data.check.labels import MEASURED, hold_labels
from densemble.data.check.problems import Problem, Severity
from densemble.data.check.seen import CheckedData, CheckedPair, ValueFacts
from densemble.data.heat_scale import WHOLE_LIMITS, number_type
from densemble.data.read_pairs import is_point_table
from densemble.tasks import TASKS

_VARYING = 8
_METRES = 1000
_CROWDED = 0.05
_MANY_ZEROS = 0.01
_TWELVE_BITS = 4096


def judge_uniformity(checked: CheckedData) -> Iterator[Problem]:
    """Problems of the whole data set, even if each file on its own is valid."""
    if checked.images:
        yield from _images(checked)
    channels = Counter(target.channels for _, target in checked.targets)
    usual = channels.most_common(1)[0][0] if channels else 0
    for pair, target in checked.targets:
        if target.channels != usual:
            file = pair.sample.target
            message = f"'{file}' has {target.channels} channels, most maps have {usual}"
            yield pair.problem("mixed maps", file, message, f"make all maps with {usual} channels")
    yield from _palettes(checked)
    yield from _meaning(checked)


def _images(checked: CheckedData) -> Iterator[Problem]:
    channels = Counter(image.channels for _, image in checked.images)
    usual, fewest = channels.most_common(1)[0][0], min(channels)
    for pair, image in checked.images:
        if image.channels != usual:
            file = pair.sample.image
            message = f"'{file}' has {image.channels} channels, most images have {usual}"
            remedy = f"use channels that all images have: --set 'data.bands={list(range(fewest))}'"
            yield pair.problem("mixed channels", file, message, remedy)
    depths = Counter(image.depth for _, image in checked.images)
    if len(depths) > 1:
        counts = ", ".join(f"{count} {depth}" for depth, count in depths.most_common())
        message = f"images have different depths: {counts}; the same scene may be darker in some of them"
        remedy = "save all in one depth, or set the values of 0 and 1: --set data.image_range=[LOW, HIGH]"
        yield checked.problem("mixed depths", message, remedy, "warning")
    highest = max((image.highest for _, image in checked.images if image.depth == "uint16"), default=0)
    if 0 < highest < _TWELVE_BITS and checked.data.reading.options["image_range"] is None:
        yield _few_bits(checked, f"the 16-bit images reach {highest:g} of 65535", _image_range_remedy(highest))
    sides = [max(image.size) for _, image in checked.images]
    if max(sides) > _VARYING * min(sides):
        message = f"images are from {min(sides)} to {max(sides)} pixels long; all are resized to one size"
        remedy = "cut the large ones into pieces, or set a size that fits most: --set input_size=HEIGHTxWIDTH"
        yield checked.problem("sizes vary", message, remedy, "warning")


_IF_INTENDED = {
    "values": "if they are values, name their unit: --set data.unit=UNIT",
    "heat": "if they are heat, name the value that counts as 1: --set data.heat_max=VALUE",
    "density": "if they are counts, name their unit: --set data.unit=objects",
}


def _few_bits(checked: CheckedData, subject: str, remedy: str) -> Problem:
    limit = f"{_TWELVE_BITS / 65536:.4f}"
    message = f"{subject}: they seem to hold 12 bits or less, and none of their values is above {limit}"
    return checked.problem("few of 16 bits", message, remedy, "warning")


def _image_range_remedy(highest: float) -> str:
    return f"set the values of black and white: --set 'data.image_range=[0, {_all_bits(highest)}]'"


def _all_bits(highest: float) -> int:
    """The largest integer with the same number of bits, at least 255."""
    return max((1 << int(highest).bit_length()) - 1, 255)


def _palettes(checked: CheckedData) -> Iterator[Problem]:
    """Files that give a label another colour than an earlier file does.

    If one colour also has two labels, the labels of one file are wrong: an error.
    """
    colour_of: dict[int, bytes] = {}
    label_of: dict[bytes, int] = {}
    first_pair: dict[int, CheckedPair] = {}
    for pair, target in checked.targets:
        palette = target.palette or b""
        used = [label for label in target.labels or {} if 0 <= 3 * label < len(palette)]
        colours = {label: palette[3 * label : 3 * label + 3] for label in used}
        changed = [label for label, colour in colours.items() if colour_of.get(label, colour) != colour]
        moved = [label for label, colour in colours.items() if label_of.get(colour, label) != label]
        if changed:
            label = (moved or changed)[0]
            before = colour_of.get(label, label.to_bytes(3, "big"))
            file, earlier = str(pair.sample.target), str(first_pair.get(label, pair).sample.target)
            message = (
                f"label {label} is #{colours[label].hex()} in '{file}', but #{before.hex()} in '{earlier}': "
                "their palettes differ"
            )
            remedy = (
                "read the colours instead of the numbers: --set data.color_map=FILE with lines red,green,blue,name; "
                "or save the masks with one palette"
            )
            severity: Severity = "error" if moved else "warning"
            yield Problem("palettes differ", file, message, remedy, severity, pair.split, partner=earlier)
        for label, colour in colours.items():
            colour_of.setdefault(label, colour)
            label_of.setdefault(colour, label)
            first_pair.setdefault(label, pair)


def _scale(checked: CheckedData, files: Sequence[Path], highest: float) -> Iterator[Problem]:
    """Warns if the values that count as 0 and 1 are unlikely; ``highest`` is the maximum of all targets."""
    kind, options = checked.data.reading.kind, checked.data.reading.options
    heat_max = options["heat_max"]
    types = set() if heat_max == {} else {number_type(file) for file in files}
    if types == {"uint16"} and 0 < highest < _TWELVE_BITS / 65535:
        stored = highest * 65535
        subject = f"the 16-bit maps reach {stored:.0f} of 65535"
        if kind == "pixels" and options["image_range"] is None:
            yield _few_bits(checked, subject, _image_range_remedy(stored))
        elif kind == "heat" and isinstance(heat_max, Mapping):
            remedy = f"set the value that counts as 1: --set data.heat_max={_all_bits(stored)}"
            yield _few_bits(checked, subject, remedy)
    if not isinstance(heat_max, Mapping):
        return
    full = heat_max.get("float", 1.0)
    if full not in WHOLE_LIMITS:
        message = f"maps of floats reach {full:g}, which counts as 1 in all of them"
        pairs = ", ".join(f"{name}: {value}" for name, value in heat_max.items())
        flag = f"'data.heat_max={{{pairs}}}'" if len(heat_max) > 1 else f"data.heat_max={full}"
        remedy = f"save them in 0 to 1; or set the value that counts as 1: --set {flag}"
        yield checked.problem("heat above 1", message, remedy, "warning")


def _validity(checked: CheckedData, values: Sequence[ValueFacts]) -> Iterator[Problem]:
    """Warns of negative values and zeros, which may be valid or may mean unknown."""
    invalid_below, option = checked.data.invalid_below, checked.data.options["invalid_below"]
    pixels = sum(facts.pixels for facts in values)
    negative = sum(facts.negative for facts in values) / pixels
    zeros = sum(facts.zeros for facts in values) / pixels
    if negative and invalid_below == 0:
        message = f"{negative:.1%} of the values are negative and count as invalid"
        remedy = "if they are valid: --set data.invalid_below=null, else write 0 or NaN"
        yield checked.problem("negative values", message, remedy, "warning")
    elif zeros > _MANY_ZEROS and not negative and option == "auto" and invalid_below is None:
        message = f"{zeros:.1%} of the values are 0 and count as valid"
        remedy = "if 0 means unknown: --set data.invalid_below=0; if it is valid: --set data.invalid_below=null"
        yield checked.problem("zeros", message, remedy, "warning")


def _meaning(checked: CheckedData) -> Iterator[Problem]:
    """Targets that seem to be made for another task or in another unit."""
    data, kind = checked.data, checked.data.reading.kind
    pairs = [pair for pair, _ in checked.targets]
    values = [target.values for _, target in checked.targets if target.values is not None and target.values.valid]
    highest = max((facts.high for facts in values), default=0.0)
    if kind in MEASURED and hold_labels(data, pairs):
        message = f"the maps hold few small whole numbers, like labels of classes: they are no {kind}"
        remedy = f"use the task that fits them: --task segmentation; {_IF_INTENDED[kind]}"
        yield checked.problem(f"labels as {kind}", message, remedy)
    elif TASKS[data.task_name].in_metres and data.scale == 1 and not data.options.get("unit") and values:
        if highest > _METRES:
            message = f"depths reach {highest:g}, and their unit is not set: they look like millimetres"
            remedy = "for metres --set data.scale=0.001 --set data.unit=m, or for millimetres --set data.unit=mm"
            yield checked.problem("unit", message, remedy, "warning")
    elif kind in ("heat", "pixels") and values:
        yield from _scale(checked, [pair.sample.target for pair in pairs], highest)
    if kind == "values" and values:
        yield from _validity(checked, values)
    if kind == "density":
        drawn = [
            (target.points or 0) / target.values.pixels
            for pair, target in checked.targets
            if target.values is not None and not is_point_table(pair.sample.target)
        ]
        if drawn and float(np.median(drawn)) > _CROWDED:
            message = f"densities sum up to {np.median(drawn):.2g} objects per pixel: they seem to be scaled"
            remedy = "the sum of a map must be a count: --set data.scale=FACTOR, or save it as TIFF or NPY of floats"
            yield checked.problem("scaled densities", message, remedy, "warning")
    copies = sum(problem.kind == "target is its image" for pair in pairs for problem in pair.problems)
    if copies and copies == len(pairs):
        message, remedy = "every map equals its image", "put the target images into the other folder"
        yield checked.problem("targets are the images", message, remedy)
