"""Planes: what windows give of a prediction, and what finished rows of it are.

Where windows meet, each gives what is asked for. Where they overlap, each gives what can be blended, the mean and the
moments of the members, and everything else is computed from the blended ones: entropies, votes and variances of
windows cannot be added up.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.guarantee import ConformalInterval
from densemble.ensemble.prediction import MAPS, Prediction
from densemble.ensemble.uncertainty import UNCERTAINTY, Moments, RunningUncertainty, asked_maps
from densemble.errors import UsageError
from densemble.inference.tiles.stitch import Planes

_MEAN = "mean"
_MOMENTS = tuple(field.name for field in fields(Moments))


@dataclass(frozen=True)
class Rows:
    """Finished rows of an ensemble's map at the image's size, on the CPU.

    Attributes:
        top: number of the first row.
        planes: the maps of :class:`densemble.ensemble.prediction.Prediction` that were asked for, without the batch
            axis: ``(K, n, W)`` or ``(n, W)``; float32, but ``label`` uint8 (int32 for more than 256 classes) and
            ``included`` bool.
    """

    top: int
    planes: Planes

    @property
    def height(self) -> int:
        """Number of rows."""
        return int(next(iter(self.planes.values())).shape[-2])


def require_planes(ensemble: Ensemble, wanted: Collection[str]) -> None:
    """Checks that an ensemble has all planes that are wanted.

    Raises:
        UsageError: it has not; those that it has get listed.
    """
    able = {"mean", *asked_maps(True, ensemble.task.distribution)}
    if ensemble.task.distribution == "categorical":
        able.add("label")
    if ensemble.guarantee is not None:
        able |= {"lower", "upper"} if isinstance(ensemble.guarantee, ConformalInterval) else {"included"}
    missing = [name for name in wanted if name not in able]
    if missing or not wanted:
        what = f"no plane '{missing[0]}'" if missing else "no planes were asked for"
        raise UsageError(
            f"{what}: for {ensemble.task.name} this ensemble gives {', '.join(name for name in MAPS if name in able)}"
        )


def wanted_planes(ensemble: Ensemble, prediction: Prediction, wanted: Collection[str]) -> Planes:
    """The planes ``(c, h, w)`` that are wanted of a prediction of one image, labels as small integers.

    Raises:
        UsageError: a guarantee that is void, because a member was left out.
    """
    found: Planes = {}
    for name in wanted:
        plane: Tensor | None = getattr(prediction, name)
        if plane is None:
            raise UsageError(f"the ensemble gives no '{name}' without all of its members; leave it out")
        found[name] = plane[0] if MAPS[name].channels else plane[:1]
    if "label" in found:
        found["label"] = found["label"].to(torch.uint8 if ensemble.task.out_channels <= 256 else torch.int32)
    return found


def blendable(mean: Tensor, running: RunningUncertainty | None) -> Planes:
    """The planes of one window that are linear in what its windows say: the calibrated mean and the moments."""
    planes = {_MEAN: mean[0]}
    if running is None:
        return planes
    moments = running.moments()
    for name in _MOMENTS:
        plane: Tensor | None = getattr(moments, name)
        if plane is not None:
            planes[f"members {name}"] = plane[0] if plane.ndim == 4 else plane
    return planes


def blended_finisher(ensemble: Ensemble, wanted: Collection[str]) -> Callable[[Planes], Planes]:
    """What turns complete planes of :func:`blendable` into those that are wanted."""
    asked = frozenset(wanted) & UNCERTAINTY

    def finish(planes: Planes) -> Planes:
        empty = ensemble.combination.running(asked)
        running = None
        if empty is not None:
            moments = Moments(**{name: _batched(planes.get(f"members {name}"), name) for name in _MOMENTS})
            running = RunningUncertainty.restored(moments, ensemble.task.distribution, empty.maps)
        prediction = ensemble.combination.conclude(planes[_MEAN][None], running, asked)
        return wanted_planes(ensemble, prediction, wanted)

    return finish


def _batched(plane: Tensor | None, name: str) -> Tensor | None:
    return plane if plane is None or name == "entropy" else plane[None]


def as_rows(top: int, planes: Planes) -> Rows:
    """Finished planes ``(c, n, W)`` as :class:`Rows`."""
    return Rows(top, {name: plane if MAPS[name].channels else plane[0] for name, plane in planes.items()})
