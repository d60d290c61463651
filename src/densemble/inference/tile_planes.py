"""Planes: which maps of a prediction are carried through tiles, and what finished rows of them are."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.guarantee import ConformalInterval
from densemble.ensemble.prediction import Prediction
from densemble.errors import UsageError
from densemble.inference.tile_stitch import Planes

PLANES = (
    "mean", "label", "variance", "entropy", "expected_entropy", "mutual_information", "disagreement",
    "included", "lower", "upper",
)  # fmt: skip
UNCERTAINTY = frozenset({"variance", "entropy", "expected_entropy", "mutual_information", "disagreement"})
OF_MEAN = frozenset({"label", "included"})
"""Decided from the mean map, once that is complete."""


@dataclass(frozen=True)
class Rows:
    """Finished rows of an ensemble's map at the picture's own size, on the CPU; what was not asked for is ``None``.

    The planes are those of :class:`densemble.ensemble.prediction.Prediction`, without the batch axis.

    Attributes:
        top: the first of them.
        mean, variance, lower, upper: float32 ``(K, n, W)``.
        entropy, expected_entropy, mutual_information, disagreement: float32 ``(n, W)``.
        label: uint8 ``(n, W)``; int32 for more than 256 classes.
        included: bool ``(K, n, W)``.
    """

    top: int
    mean: Tensor | None = None
    label: Tensor | None = None
    variance: Tensor | None = None
    entropy: Tensor | None = None
    expected_entropy: Tensor | None = None
    mutual_information: Tensor | None = None
    disagreement: Tensor | None = None
    included: Tensor | None = None
    lower: Tensor | None = None
    upper: Tensor | None = None

    @property
    def height(self) -> int:
        """How many rows."""
        planes = (getattr(self, name) for name in PLANES)
        return next(int(plane.shape[-2]) for plane in planes if plane is not None)


def require_planes(ensemble: Ensemble, wanted: Collection[str]) -> None:
    """Checks that an ensemble has all planes that are wanted.

    Raises:
        UsageError: it has not; those that it has get listed.
    """
    able = ["mean", "variance"]
    if ensemble.task.distribution != "none":
        able += [name for name in PLANES if name in UNCERTAINTY - {"variance"}]
    if ensemble.task.distribution == "categorical":
        able.append("label")
    if ensemble.guarantee is not None:
        able += ["lower", "upper"] if isinstance(ensemble.guarantee, ConformalInterval) else ["included"]
    missing = [name for name in wanted if name not in able]
    if missing or not wanted:
        what = f"no plane '{missing[0]}'" if missing else "no planes were asked for"
        raise UsageError(f"{what}: for {ensemble.task.name} this ensemble gives {', '.join(able)}")


def carried(wanted: Collection[str], from_mean: bool) -> tuple[str, ...]:
    """Planes that windows have to give; ``from_mean``: what is decided from the mean is decided once it is complete."""
    late = OF_MEAN & set(wanted) if from_mean else set()
    kept = set(wanted) - late | ({"mean"} if late else set())
    return tuple(name for name in PLANES if name in kept)


def planes_of(prediction: Prediction, names: Collection[str]) -> list[Planes]:
    """The planes ``(c, h, w)`` of every image of a prediction."""
    found: Planes = {}
    for name in names:
        plane: Tensor | None = getattr(prediction, name)
        if plane is None:  # a guarantee that is void, for a member had to be done without
            raise UsageError(f"the ensemble gives no '{name}' without all of its members; leave it out")
        found[name] = plane if plane.ndim == 4 else plane[:, None]
    return [{name: plane[i] for name, plane in found.items()} for i in range(len(prediction.mean))]


def finisher(ensemble: Ensemble, wanted: Collection[str]) -> Callable[[Planes], Planes]:
    """What turns complete planes into those that are wanted, labels as small integers."""
    small = torch.uint8 if ensemble.task.out_channels <= 256 else torch.int32

    def finish(planes: Planes) -> Planes:
        found = dict(planes)
        if "label" in wanted:
            label = planes["label"] if "label" in planes else planes["mean"].max(0, keepdim=True).indices
            found["label"] = label.to(small)
        if "included" in wanted and "included" not in planes:
            included = ensemble.included(planes["mean"][None])
            if included is None:
                raise UsageError("the ensemble gives no 'included' without all of its members; leave it out")
            found["included"] = included[0]
        return {name: found[name] for name in wanted}

    return finish


def as_rows(top: int, planes: Planes) -> Rows:
    """Finished planes ``(c, n, W)`` as :class:`Rows`."""
    flat = UNCERTAINTY - {"variance"} | {"label"}
    named = {name: plane[0] if name in flat else plane for name, plane in planes.items()}
    return Rows(top, *(named.get(name) for name in PLANES))
