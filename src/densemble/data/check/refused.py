"""Maps that could not be read for the task: why, told by what the file holds."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np

from densemble.data.check.labels import MEASURED
from densemble.data.check.maps import LOSSY_SUFFIXES, map_files
from densemble.data.check.problems import Problem, damage, from_error
from densemble.data.check.seen import Seen
from densemble.data.check.subject import Checkable
from densemble.data.read_pairs import is_point_table
from densemble.errors import DataError
from densemble.shapes import Array
from densemble.storage import images as codec
from densemble.tasks.task import TargetKind

_MOST_COLOURS = 64
_SHOWN = 6


def explain_map(seen: Seen, data: Checkable, error: DataError) -> Problem:
    """The problem behind an error.

    Args:
        seen: the pair.
        data: the folder.
        error: of ``Reading.target``.
    """
    path = seen.sample.target
    if isinstance(error, codec.SeveralImages):
        return from_error("several pages", path, error)
    if seen.sample.drawing is not None:
        return from_error("annotation", path, error)
    if is_point_table(path):
        return from_error("point table", path, error, "write one line x,y or x,y,label for each point")
    values: set[float] = set()
    for file in map_files(seen):
        try:
            planes = codec.read_planes(file, turn=False)
            values |= set(np.unique(planes).tolist())
        except codec.UnusableMap as reason:
            return from_error("unusable map", file, reason)
        except DataError as reason:
            return damage(file, seen.name, reason)
    kind = data.reading.kind
    if kind == "labels":
        return _refused_labels(seen, data, planes, error)
    if kind == "masks":
        return replace(from_error("mask values", path, error), remedy=_mask_remedy(values))
    return _refused_values(path, kind, planes) or from_error("unusable map", path, error)


def _refused_values(path: Path, kind: TargetKind, planes: Array) -> Problem | None:
    """The problem of a map of heat, densities, measured values or pixels, as far as it is known."""
    if planes.dtype.kind == "f" and not np.isfinite(planes).all():
        message = f"'{path}' holds {int((~np.isfinite(planes)).sum())} undefined values (NaN or infinity)"
        return Problem("not a number", str(path), message, "write 0 where nothing is, then save it again")
    valid = codec.read_validity(path) if kind in ("heat", "density") else None
    if valid is not None and not valid.all():
        message = f"'{path}' holds no data at {int((~valid).sum())} pixels, and {kind} is known everywhere"
        return Problem(
            "no data", str(path), message, "write 0 where nothing is looked at or counted, and no no-data value"
        )
    if kind in MEASURED and codec.palette_of(path) is not None:
        message = f"'{path}' has a palette: its numbers are classes, no {kind}"
        return Problem(
            f"labels as {kind}", str(path), message, "choose the task that they are for: --task segmentation"
        )
    if kind in ("heat", "density") and planes.dtype.kind in "if" and planes.min(initial=0) < 0:
        message = f"'{path}' holds values down to {planes.min():g}"
        return Problem("negative values", str(path), message, "shift or cut them: the lowest value must be 0")
    if kind in ("heat", "density", "values") and planes.shape[2] in (3, 4):
        message = f"'{path}' is an image in colours, wanted one channel of numbers"
        return Problem(
            "coloured map",
            str(path),
            message,
            "save the numbers themselves as grey PNG, TIFF or NPY; if it is the image that is wanted: --task image",
        )
    return None


def _mask_remedy(values: Collection[float]) -> str:
    wrong = sorted(value for value in values if value not in (0, 1))
    if len(wrong) > 8 or any(value != int(value) for value in wrong):
        return "save masks as PNG of 0 and 1 (or 255) without antialiasing or JPEG compression"
    meant = ", ".join(f"{int(value)}: 1" for value in wrong)
    classes = "; where each is a class: --task segmentation" if len(wrong) > 1 or wrong == [2] else ""
    return f"say what they mean: --set 'data.label_map={{{meant}}}'{classes}"


def _refused_labels(seen: Seen, data: Checkable, planes: Array, error: DataError) -> Problem:
    path = seen.sample.target
    if data.reading.color_map is not None:
        return _strange_colours(seen, data, error)
    if planes.dtype.kind == "f" and not np.array_equal(planes, np.round(planes)):
        return Problem(
            "values as labels",
            str(path),
            f"'{path}' holds fractions or undefined values: it looks like heat or measured values",
            "choose the task that the maps are for: --task saliency, --task depth or --task regression",
        )
    if planes.shape[2] != 3:
        return from_error("unusable map", path, error)
    colours = _colours(planes)
    lossy = path.suffix.lower() in LOSSY_SUFFIXES
    if lossy or len(colours) > _MOST_COLOURS:
        message = f"'{path}' is in {len(colours)} colours" + (": it is a JPEG, which changes them" if lossy else "")
        remedy = (
            "make the masks again without antialiasing and save them as PNG"
            if lossy
            else (
                "if it is a photograph, the maps are somewhere else; if its borders are smoothed, make it again without"
            )
        )
        return Problem("lossy labels" if lossy else "too many colours", str(path), message, remedy)
    shown = ", ".join(colours[:_SHOWN]) + (f" and {len(colours) - _SHOWN} more" if len(colours) > _SHOWN else "")
    example = ", ".join(f"NAME{i}: '{colour}'" for i, colour in enumerate(colours[:2]))
    return Problem(
        "colour-coded labels",
        str(path),
        f"'{path}' codes its labels in {len(colours)} colours: {shown}",
        f'say which is which: --set "data.color_map={{{example}, ...}}", or a file of lines red,green,blue,name: '
        "--set data.color_map=FILE",
    )


def _strange_colours(seen: Seen, data: Checkable, error: DataError) -> Problem:
    told = from_error("unknown colours", seen.sample.target, error)
    try:
        colours = codec.read_colours(seen.sample.target)
    except DataError:
        return replace(told, kind="unusable map")
    if seen.sample.target.suffix.lower() in LOSSY_SUFFIXES:
        return replace(told, kind="lossy labels", remedy="save the masks again as PNG, from where they were made")
    known = data.reading.color_map or {}
    return replace(told, kind="smoothed labels") if len(_colours(colours)) > 4 * len(known) + 4 else told


def _colours(planes: Array) -> list[str]:
    """Distinct colours as ``#rrggbb``."""
    packed = np.unique(planes[..., :3].astype(np.int64) @ np.array([65536, 256, 1]))
    return [f"#{value:06x}" for value in packed.tolist()]
