"""Guesses the task of a folder from its targets."""

from collections import Counter
from pathlib import Path

import numpy as np

from densemble.data.check.patterns import MANY_LABELS, look_like_labels
from densemble.data.facts import evenly_spaced
from densemble.data.layouts import Layout, Sample, find_layout
from densemble.data.read_pairs import is_point_table
from densemble.errors import DataError
from densemble.shapes import Array
from densemble.storage import images as codec

_SAMPLED = 16
_FEW_COLOURS = 64
_HIGHEST_UINT8 = 255


def guess_task(path: Path) -> tuple[str, str]:
    """Guess the task from a sample of the targets; return the most frequent guess and its reason.

    Raises:
        DataError: the folder does not exist, or no target is readable.
    """
    layout = find_layout(path)
    samples = [sample for split in layout.splits.values() for sample in split]
    guesses = Counter(
        guess for sample in evenly_spaced(samples, _SAMPLED) if (guess := _guess(layout, sample)) is not None
    )
    if not guesses:
        raise DataError(f"no target in '{path}' can be read, so the task cannot be guessed; set it with --task TASK")
    return guesses.most_common(1)[0][0]


def _guess(layout: Layout, sample: Sample) -> tuple[str, str] | None:
    if sample.planes:
        return "multilabel", "one mask per class"
    if sample.points is not None:
        return "saliency", "maps with fixations"
    if sample.drawing is not None or layout.color_map is not None or layout.label_map is not None:
        return "segmentation", f"label maps in the layout '{layout.name}'"
    if is_point_table(sample.target):
        return "heatmap", "tables of points"
    try:
        planes = codec.read_planes(sample.target)
        palette = codec.read_palette(sample.target)
    except DataError:
        return None
    if palette is not None:
        return "segmentation", "label maps with a palette"
    if planes.shape[2] > 1 and not (planes[..., :1] == planes).all():
        return _guess_planes(planes)
    return _guess_grey(planes[..., 0], layout)


def _guess_planes(planes: Array) -> tuple[str, str]:
    binary = set(np.unique(planes).tolist()) <= {0, 1, _HIGHEST_UINT8}
    if binary and (planes.shape[2] != 3 or planes.max() == 1):  # three planes of 0 and 255 may be RGB colours
        return "multilabel", "masks with several channels"
    if planes.shape[2] != 3:
        return "heatmap", "values in several channels"
    colours = len(np.unique(planes.reshape(-1, 3), axis=0))
    if colours <= _FEW_COLOURS:
        return "segmentation", "masks with few colours"
    return "image", "colour images"


def _guess_grey(values: Array, layout: Layout) -> tuple[str, str]:
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    high, distinct = float(finite.max(initial=0)), np.unique(finite)
    if values.dtype.kind == "f" or high > _HIGHEST_UINT8:
        if 0 < high <= 1 and finite.min() >= 0:
            return "saliency", "values from 0 to 1"
        is_depth = "depth" in str(layout.path).lower() or high > _HIGHEST_UINT8
        return "depth" if is_depth else "regression", "measured values"
    if layout.classes is not None or set(distinct.tolist()) <= {0, 1, _HIGHEST_UINT8}:
        return "segmentation", "label maps with few classes"
    if look_like_labels(values.astype(np.float32)) or len(distinct) <= min(high, MANY_LABELS) / 4:
        return "segmentation", "label maps with few distinct values"
    return "saliency", "smooth grey maps"
