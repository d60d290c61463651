"""Label maps that are given to a task of heat or of measured values."""

from collections.abc import Sequence

import numpy as np

from densemble.data.check.patterns import VOID, look_like_labels
from densemble.data.check.seen import Seen
from densemble.data.check.subject import Checkable
from densemble.data.read_pairs import is_point_table
from densemble.errors import DataError
from densemble.storage import images as codec

MEASURED = ("heat", "density", "values")
_LOOKED_AT = 16
_MOST = 0.9


def hold_labels(data: Checkable, seen: Sequence[Seen]) -> bool:
    """Whether nearly all maps hold labels of classes, told by the numbers in some of the files.

    Numbers that the settings say something of (a unit, a scale, the value of heat that counts as 1) are meant as such.
    """
    if data.options.get("unit") or data.scale != 1 or data.heat_is_told:
        return False
    files = [one.sample.target for one in seen if not one.sample.planes and not is_point_table(one.sample.target)]
    files = files[:: max(1, len(files) // _LOOKED_AT)]
    judged = alike = 0
    highest = 0.0
    for file in files:
        try:
            planes = codec.read_planes(file)
        except DataError:
            continue
        if not planes.any():
            continue
        judged += 1
        alike += bool((planes == planes[..., :1]).all() and look_like_labels(planes[..., 0].astype(np.float32), 1))
        highest = max(highest, float(np.nanmax(planes, where=planes != VOID, initial=0)))
        if judged - alike > (1 - _MOST) * len(files):
            return False
    return judged > 0 and highest >= (1 if data.reading.kind == "values" else 2)  # heat of 0 and 1 is a mask
