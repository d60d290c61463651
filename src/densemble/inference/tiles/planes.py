"""Planes: the maps that windows give, and the finished rows made from them.

Adjacent windows give the requested maps. Overlapping windows give the maps that can be blended, which are the mean and
the moments of the members; all other maps are computed from the blended ones, because entropies, votes and variances
of windows cannot be added.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.guarantee import ConformalInterval
from densemble.ensemble.prediction import MAPS, Prediction
from densemble.ensemble.uncertainty import UNCERTAINTY, Moments, RunningUncertainty, requested_maps
from densemble.errors import UsageError
from densemble.inference.tiles.stitch import Planes

_MEAN = "mean"
_MOMENTS = tuple(field.name for field in fields(Moments))


@dataclass(frozen=True)
class Rows:
    """Finished rows of an ensemble's maps at the image size, on the CPU.

    Attributes:
        top: index of the first row.
        planes: the requested maps of :class:`densemble.ensemble.prediction.Prediction` without the batch axis,
            ``(K, n, W)`` or ``(n, W)``; float32, except ``label`` uint8 (int32 for more than 256 classes) and
            ``included`` bool.
    """

    top: int
    planes: Planes

    @property
    def height(self) -> int:
        """Number of rows."""
        return int(next(iter(self.planes.values())).shape[-2])


def require_planes(ensemble: Ensemble, requested: Collection[str]) -> None:
    """Check that an ensemble gives all requested planes.

    Raises:
        UsageError: it does not; the message lists the available ones.
    """
    available = {"mean", *requested_maps(True, ensemble.task.distribution)}
    if ensemble.task.distribution == "categorical":
        available.add("label")
    if ensemble.guarantee is not None:
        available |= {"lower", "upper"} if isinstance(ensemble.guarantee, ConformalInterval) else {"included"}
    missing = [name for name in requested if name not in available]
    if missing or not requested:
        problem = f"no plane '{missing[0]}'" if missing else "no planes were requested"
        names = ", ".join(name for name in MAPS if name in available)
        raise UsageError(f"{problem}: for {ensemble.task.name} this ensemble gives {names}")


def select_planes(ensemble: Ensemble, prediction: Prediction, requested: Collection[str]) -> Planes:
    """The requested planes ``(c, h, w)`` of a prediction of one image, labels as small integers.

    Raises:
        UsageError: a guarantee is requested that is void, because a member was left out.
    """
    planes: Planes = {}
    for name in requested:
        plane: Tensor | None = getattr(prediction, name)
        if plane is None:
            raise UsageError(f"the ensemble gives no '{name}' without all of its members; do not request it")
        planes[name] = plane[0] if MAPS[name].channels else plane[:1]
    if "label" in planes:
        planes["label"] = planes["label"].to(torch.uint8 if ensemble.task.out_channels <= 256 else torch.int32)
    return planes


def blendable(mean: Tensor, running: RunningUncertainty | None) -> Planes:
    """The planes of one window that can be blended: the calibrated mean and the moments."""
    planes = {_MEAN: mean[0]}
    if running is None:
        return planes
    moments = running.moments()
    for name in _MOMENTS:
        plane: Tensor | None = getattr(moments, name)
        if plane is not None:
            planes[f"members {name}"] = plane[0] if plane.ndim == 4 else plane
    return planes


def blended_finisher(ensemble: Ensemble, requested: Collection[str]) -> Callable[[Planes], Planes]:
    """Make a function that converts complete planes of :func:`blendable` to the requested ones."""
    uncertainty = frozenset(requested) & UNCERTAINTY

    def finish(planes: Planes) -> Planes:
        empty = ensemble.combination.running(uncertainty)
        running = None
        if empty is not None:
            moments = Moments(**{name: _batched(planes.get(f"members {name}"), name) for name in _MOMENTS})
            running = RunningUncertainty.restored(moments, ensemble.task.distribution, empty.maps)
        prediction = ensemble.combination.conclude(planes[_MEAN][None], running, uncertainty)
        return select_planes(ensemble, prediction, requested)

    return finish


def _batched(plane: Tensor | None, name: str) -> Tensor | None:
    return plane if plane is None or name == "entropy" else plane[None]


def as_rows(top: int, planes: Planes) -> Rows:
    """Convert finished planes ``(c, n, W)`` to :class:`Rows`."""
    return Rows(top, {name: plane if MAPS[name].channels else plane[0] for name, plane in planes.items()})
