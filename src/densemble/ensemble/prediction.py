"""What an ensemble says about images: the combined map and how sure it is."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Self, TypeVar

import torch
from torch import Tensor

from densemble.ensemble.membership import Part
from densemble.errors import UsageError


@dataclass(frozen=True)
class MapTraits:
    """Traits of a map of a :class:`Prediction`.

    Attributes:
        channels: shape ``(B, K, h, w)``; else ``(B, h, w)``.
        resizing: how the map gets another size: ``derived`` again from the resized mean; ``resized`` itself; or
            ``fixed``: it is computed over the members and cannot be resized.
        without_guarantee: value for an image that was predicted without a member, in a batch with others that have a
            guarantee; NaN: the map is no part of a guarantee.
    """

    channels: bool
    resizing: Literal["derived", "resized", "fixed"]
    without_guarantee: float = math.nan

    @property
    def guarantee(self) -> bool:
        """Whether the map is part of a guarantee, which is void where a member is left out."""
        return not math.isnan(self.without_guarantee)


@dataclass(frozen=True)
class Prediction:
    """Combined map and uncertainty of a batch; without uncertainty all its maps but ``mean`` may be ``None``.

    Nothing is guaranteed of an image that had to do without a member: in a batch with others, its set holds all
    classes and its interval is unbounded.

    All maps have one size, except what :meth:`Ensemble.predict_members` gives: there the maps over the members and a
    guaranteed interval that follows a variance have the images' size H x W, the others the ensemble's h x w.

    Attributes:
        mean: combined and calibrated activated map ``(B, K, h, w)``: probabilities, or values in the target's unit.
        variance: over the members, ``(B, K, h, w)``; of values, calibrated where the ensemble is: their expected
            squared error.
        entropy: predictive entropy of ``mean`` in nats ``(B, h, w)``; ``None`` for regression.
        expected_entropy: mean of the members' entropies ``(B, h, w)``; ``None`` for regression.
        mutual_information: entropy of the members' arithmetic mean less their expected entropy, >= 0, ``(B, h, w)``:
            what they disagree about, for every rule and calibration; ``None`` for regression.
        disagreement: share of the members that decide otherwise than most of them, 0..1, ``(B, h, w)``; ``None`` for
            regression.
        label: most probable class ``(B, h, w)``, integer; ``None`` where there are no classes.
        included: classes that the guaranteed set holds, bool ``(B, K, h, w)``; ``None`` without such a guarantee.
        lower, upper: guaranteed interval of the values, ``(B, K, h, w)``; ``None`` without such a guarantee.
        left_out: for each image the members that gave no usable map of it, and why; ``None`` where there are none.
    """

    mean: Tensor = field(metadata={"traits": MapTraits(True, "derived")})
    variance: Tensor | None = field(metadata={"traits": MapTraits(True, "fixed")})
    entropy: Tensor | None = field(metadata={"traits": MapTraits(False, "derived")})
    expected_entropy: Tensor | None = field(metadata={"traits": MapTraits(False, "fixed")})
    mutual_information: Tensor | None = field(metadata={"traits": MapTraits(False, "fixed")})
    disagreement: Tensor | None = field(metadata={"traits": MapTraits(False, "fixed")})
    label: Tensor | None = field(metadata={"traits": MapTraits(False, "derived")})
    included: Tensor | None = field(default=None, metadata={"traits": MapTraits(True, "derived", True)})
    lower: Tensor | None = field(default=None, metadata={"traits": MapTraits(True, "resized", -math.inf)})
    upper: Tensor | None = field(default=None, metadata={"traits": MapTraits(True, "resized", math.inf)})
    left_out: tuple[Mapping[str, str], ...] | None = None

    @classmethod
    def cat(cls, parts: Sequence["Prediction"]) -> "Prediction":
        """The prediction of the images of several predictions, in order."""
        if len(parts) == 1:
            return parts[0]
        maps: dict[str, Any] = {}
        for name, traits in MAPS.items():
            column = [getattr(part, name) for part in parts]
            known = next((batch for batch in column if batch is not None), None)
            maps[name] = known if known is None else torch.cat([
                known.new_full((len(part.mean), *known.shape[1:]), traits.without_guarantee) if batch is None else batch
                for part, batch in zip(parts, column, strict=True)
            ])  # fmt: skip
        left_out = tuple(row for part in parts for row in part.left_out or ({},) * len(part.mean))
        return cls(**maps, left_out=left_out if any(left_out) else None)

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Self:
        """The prediction of some images of the batch; that of a single one is a batch of one.

        Raises:
            IndexError: there is no such image.
        """
        images = torch.arange(len(self.mean))[index].reshape(-1).tolist()
        chosen = slice(images[0], images[0] + 1) if isinstance(index, int) else index
        left_out = tuple(self.left_out[image] for image in images) if self.left_out else ()
        void = bool(left_out) and all(left_out)
        names = [name for name, traits in MAPS.items() if not (void and traits.guarantee)]
        found = self.only(names).map(lambda maps: maps[chosen])
        return replace(found, left_out=left_out if any(left_out) else None)

    def maps(self) -> dict[str, Tensor]:
        """The maps that were computed, by name."""
        found = {name: getattr(self, name) for name in MAPS}
        return {name: maps for name, maps in found.items() if maps is not None}

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """The same with a function of every map that was computed."""
        changed: dict[str, Any] = {name: function(maps) for name, maps in self.maps().items()}
        return replace(self, **changed)

    def only(self, names: Collection[str]) -> Self:
        """The same with the mean and the maps of these names, without the others."""
        dropped: dict[str, Any] = {name: None for name in MAPS if name != "mean" and name not in names}
        return replace(self, **dropped)

    def spread(self) -> Tensor:
        """:attr:`variance`, where it was computed.

        Raises:
            UsageError: this was predicted without uncertainty.
        """
        if self.variance is None:
            raise UsageError("this was predicted without uncertainty; predict with uncertainty=True")
        return self.variance


MAPS: dict[str, MapTraits] = {
    entry.name: entry.metadata["traits"] for entry in fields(Prediction) if "traits" in entry.metadata
}
"""Maps of a prediction, by name."""

Maps = TypeVar("Maps", Tensor, Prediction)


def in_order(parts: Sequence[Part[Maps]], cat: Callable[[list[Maps]], Maps]) -> Maps:
    """Maps of a batch from those of its parts, see :func:`densemble.ensemble.membership.per_image`.

    Args:
        parts: of all images of the batch.
        cat: :func:`torch.cat` or :meth:`Prediction.cat`.
    """
    if len(parts) == 1:
        return parts[0].result
    order = torch.tensor([place for part in parts for place in part.places]).argsort()
    return cat([part.result for part in parts])[order]
