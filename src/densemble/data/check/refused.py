"""Explains why a file cannot be read for the task, by what it holds."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np

from densemble.data.check.labels import MEASURED
from densemble.data.check.maps import LOSSY_SUFFIXES, TASKS_OF_VALUES, target_files
from densemble.data.check.problems import Problem, leaving_out, message_and_remedy
from densemble.data.check.seen import CheckedPair
from densemble.data.check.subject import Checkable
from densemble.data.read_pairs import first_few, is_point_table, pack_colours
from densemble.errors import DataError
from densemble.input_files import open_regular
from densemble.shapes import Array
from densemble.storage import images as codec
from densemble.tasks.task import TargetKind

_SIGNATURES = (
    b"\x89PNG",
    b"\xff\xd8",
    b"BM",
    b"RIFF",
    b"GIF8",
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"MM\0+",
    b"\x93NUMPY",
    b"PK\x03\x04",
)
"""First bytes of the supported formats."""
_MOST_COLOURS = 64
_LISTED_COLOURS = 6
_MOST_MASK_VALUES = 8


def explain_damage(pair: CheckedPair, file: Path, error: Exception) -> Problem:
    """The problem of a file that the decoder refuses with ``error``: it is missing, empty, damaged, or no image."""
    kind = "unreadable"
    remedy = f"copy it again from its source, or leave the pair out: {leaving_out(pair.name)}"
    try:
        with open_regular(file) as stream:
            beginning = stream.read(8)
    except OSError as reason:
        return pair.problem(kind, file, f"cannot open '{file}': {reason.strerror or reason}", remedy)
    if not beginning:
        return pair.problem("empty file", file, f"'{file}' has no bytes", remedy)
    if beginning.startswith(_SIGNATURES):
        kind = "damaged"
    return pair.problem(kind, file, message_and_remedy(error)[0], remedy)


def explain_target(pair: CheckedPair, data: Checkable, error: DataError) -> Problem:
    """The problem of a target that ``Reading.target`` refuses with ``error``."""
    path, kind = pair.sample.target, data.reading.kind
    message, remedy = message_and_remedy(error)
    if isinstance(error, codec.SeveralImages):
        return pair.problem("several pages", path, message, remedy)
    if pair.sample.drawing is not None:
        return pair.problem("annotation", path, message, remedy)
    if is_point_table(path):
        point_table = message_and_remedy(error, "write one line x,y or x,y,label for each point")
        return pair.problem("point table", path, *point_table)
    values: set[float] = set()
    for file in target_files(pair):
        try:
            planes = codec.read_planes(file, turn=False)
            values |= set(np.unique(planes).tolist())
        except codec.UnusableMap as reason:
            return pair.problem("unusable map", file, *message_and_remedy(reason))
        except DataError as reason:
            return explain_damage(pair, file, reason)
    if kind == "masks":
        return pair.problem("mask values", path, message, _mask_remedy(values))
    explained = _refused_labels(pair, data, planes, error) if kind == "labels" else _refused_values(pair, kind, planes)
    return explained or pair.problem("unusable map", path, message, remedy)


def _refused_values(pair: CheckedPair, kind: TargetKind, planes: Array) -> Problem | None:
    """The problem of a target of heat, densities, measured values or pixels; ``None`` if the cause is unknown."""
    path = pair.sample.target
    if planes.dtype.kind == "f" and not np.isfinite(planes).all():
        message = f"'{path}' holds {int((~np.isfinite(planes)).sum())} undefined values (NaN or infinity)"
        return pair.problem("not a number", path, message, "write 0 instead, then save it again")
    valid = codec.read_validity(path) if kind in ("heat", "density") else None
    if valid is not None and not valid.all():
        message = f"'{path}' marks {int((~valid).sum())} pixels as no data, but {kind} must be known everywhere"
        return pair.problem("no data", path, message, "write 0 there, and remove the no-data value")
    if kind in MEASURED and codec.read_palette(path) is not None:
        message = f"'{path}' has a palette: its numbers are classes, no {kind}"
        return pair.problem(f"labels as {kind}", path, message, "use the task that fits them: --task segmentation")
    if kind in ("heat", "density") and planes.dtype.kind in "if" and planes.min(initial=0) < 0:
        message = f"'{path}' holds values down to {planes.min():g}"
        return pair.problem("negative values", path, message, "shift or cut them: the lowest value must be 0")
    if kind in ("heat", "density", "values") and planes.shape[2] in (3, 4):
        message = f"'{path}' is a colour image, but the task needs one channel of numbers"
        remedy = "save the numbers as grey PNG, TIFF or NPY; if the target is an image: --task image"
        return pair.problem("coloured map", path, message, remedy)
    return None


def _mask_remedy(values: Collection[float]) -> str:
    unknown = sorted(value for value in values if value not in (0, 1))
    if len(unknown) > _MOST_MASK_VALUES or any(value != int(value) for value in unknown):
        return "save masks as PNG of 0 and 1 (or 255) without antialiasing or JPEG compression"
    entries = ", ".join(f"{int(value)}: 1" for value in unknown)
    classes = "; if each is a class: --task segmentation" if len(unknown) > 1 or unknown == [2] else ""
    return f"set what they mean: --set 'data.label_map={{{entries}}}'{classes}"


def _refused_labels(pair: CheckedPair, data: Checkable, planes: Array, error: DataError) -> Problem | None:
    """The problem of a label map; ``None`` if the cause is unknown."""
    path = pair.sample.target
    if data.reading.color_map is not None:
        return _unknown_colours(pair, len(data.reading.color_map), error)
    if planes.dtype.kind == "f" and not np.array_equal(planes, np.round(planes)):
        message = f"'{path}' holds fractions or undefined values: it looks like heat or measured values"
        return pair.problem("values as labels", path, message, TASKS_OF_VALUES)
    if planes.shape[2] != 3:
        return None
    colours = _colours(planes)
    if path.suffix.lower() in LOSSY_SUFFIXES:
        message = f"'{path}' is in {len(colours)} colours: it is a JPEG, which changes them"
        remedy = "make the masks again without antialiasing and save them as PNG"
        return pair.problem("lossy labels", path, message, remedy)
    if len(colours) > _MOST_COLOURS:
        remedy = "if it is a photograph, use the folder of the maps; if its borders are smoothed, make it again without"
        return pair.problem("too many colours", path, f"'{path}' is in {len(colours)} colours", remedy)
    message = f"'{path}' codes its labels in {len(colours)} colours: {first_few(colours, _LISTED_COLOURS)}"
    example = ", ".join(f"NAME{i}: '{colour}'" for i, colour in enumerate(colours[:2]))
    remedy = (
        f'name the class of each colour: --set "data.color_map={{{example}, ...}}", or use a file of lines '
        "red,green,blue,name: --set data.color_map=FILE"
    )
    return pair.problem("colour-coded labels", path, message, remedy)


def _unknown_colours(pair: CheckedPair, known: int, error: DataError) -> Problem:
    """The problem of a mask with colours outside the colour map, which names ``known`` colours."""
    path = pair.sample.target
    problem = pair.problem("unknown colours", path, *message_and_remedy(error))
    try:
        colours = codec.read_colours(path)
    except DataError:
        return replace(problem, kind="unusable map")
    if path.suffix.lower() in LOSSY_SUFFIXES:
        return replace(problem, kind="lossy labels", remedy="make the masks again and save them as PNG")
    return replace(problem, kind="smoothed labels") if len(_colours(colours)) > 4 * known + 4 else problem


def _colours(planes: Array) -> list[str]:
    """Distinct colours as ``#rrggbb``."""
    return [f"#{value:06x}" for value in np.unique(pack_colours(planes[..., :3])).tolist()]
