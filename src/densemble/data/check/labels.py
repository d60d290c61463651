"""Detects label maps that are used for a task of heat or of measured values."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from densemble.data.check.patterns import VOID, look_like_labels
from densemble.data.check.seen import CheckedPair
from densemble.data.check.subject import Checkable
from densemble.data.facts import evenly_spaced
from densemble.data.read_pairs import is_point_table
from densemble.errors import DataError
from densemble.storage import images as codec

MEASURED = ("heat", "density", "values")
_SAMPLED = 16
_MOST = 0.9


def hold_labels(data: Checkable, pairs: Sequence[CheckedPair]) -> bool:
    """Whether nearly all targets hold labels of classes, judged by the values in a sample of the files.

    If the settings describe the values (a unit, a scale, the value of heat that becomes 1), they are not labels.
    """
    if data.options.get("unit") or data.scale != 1 or data.heat_max_is_given:
        return False
    files: Sequence[Path] = [
        pair.sample.target for pair in pairs if not pair.sample.planes and not is_point_table(pair.sample.target)
    ]
    files = evenly_spaced(files, _SAMPLED)
    judged = label_like = 0
    highest = 0.0
    for file in files:
        try:
            planes = codec.read_planes(file)
        except DataError:
            continue
        if not planes.any():
            continue
        judged += 1
        label_like += bool((planes == planes[..., :1]).all() and look_like_labels(planes[..., 0].astype(np.float32), 1))
        highest = max(highest, float(np.nanmax(planes, where=planes != VOID, initial=0)))
        if judged - label_like > (1 - _MOST) * len(files):
            return False
    return judged > 0 and highest >= (1 if data.reading.kind == "values" else 2)  # heat of 0 and 1 is a mask
