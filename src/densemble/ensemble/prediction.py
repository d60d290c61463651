"""Prediction of an ensemble for images: the combined map and its uncertainty."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Self, TypeVar

import torch
from torch import Tensor

from densemble.ensemble.ensemble_html import prediction_html
from densemble.ensemble.membership import Part
from densemble.errors import UsageError


@dataclass(frozen=True)
class MapTraits:
    """Traits of a map of a :class:`Prediction`.

    Attributes:
        channels: whether the map has a channel axis: ``(B, K, h, w)`` instead of ``(B, h, w)``.
        resizing: how the map is brought to another size. ``derived``: computed again from the resized mean;
            ``resized``: interpolated; ``fixed``: computed over the members, cannot be resized.
        without_guarantee: value for an image that was predicted without a member, if other images of the batch have a
            guarantee; NaN: the map is not part of a guarantee.
    """

    channels: bool
    resizing: Literal["derived", "resized", "fixed"]
    without_guarantee: float = math.nan

    @property
    def guarantee(self) -> bool:
        """Whether the map is part of a guarantee, which is void if a member is left out."""
        return not math.isnan(self.without_guarantee)


@dataclass(frozen=True)
class Prediction:
    """Combined map and uncertainty of a batch; maps that were not computed are ``None``.

    An image that was predicted without a member has no guarantee. If other images of the batch have one, its set holds
    all classes and its interval is unbounded.

    All maps have one size, except in the result of :meth:`Ensemble.predict_members`: there the maps computed over the
    members, and an interval that depends on the variance, have the size H x W of the images; the others have the
    ensemble's output size h x w.

    Attributes:
        mean: combined and calibrated activated map ``(B, K, h, w)``: probabilities, or values in the target's unit.
        variance: variance over the members, ``(B, K, h, w)``. If the ensemble calibrates the variance of values, this
            is their expected squared error.
        entropy: predictive entropy of ``mean`` in nats ``(B, h, w)``; ``None`` for regression.
        expected_entropy: mean of the members' entropies ``(B, h, w)``; ``None`` for regression.
        mutual_information: entropy of the members' arithmetic mean minus their expected entropy, >= 0, ``(B, h, w)``:
            the part of the uncertainty due to disagreement, for every rule and calibration; ``None`` for regression.
        disagreement: share of the members whose decision differs from the most common one, 0..1, ``(B, h, w)``;
            ``None`` for regression.
        label: most probable class ``(B, h, w)``, integer; ``None`` if the task has no classes.
        included: classes in the guaranteed set, bool ``(B, K, h, w)``; ``None`` without such a guarantee.
        lower, upper: guaranteed interval of the values, ``(B, K, h, w)``; ``None`` without such a guarantee.
        left_out: for each image, the members without a usable map of it, with the reason; ``None`` if there are none.
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
        """Concatenate predictions along the batch, in order."""
        if len(parts) == 1:
            return parts[0]
        maps: dict[str, Any] = {}
        for name, traits in MAPS.items():
            batches = [getattr(part, name) for part in parts]
            known = next((batch for batch in batches if batch is not None), None)
            maps[name] = known if known is None else torch.cat([
                known.new_full((len(part.mean), *known.shape[1:]), traits.without_guarantee) if batch is None else batch
                for part, batch in zip(parts, batches, strict=True)
            ])  # fmt: skip
        left_out = tuple(image for part in parts for image in part.left_out or ({},) * len(part.mean))
        return cls(**maps, left_out=left_out if any(left_out) else None)

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Self:
        """Return the prediction of some images of the batch; a single index gives a batch of one.

        Raises:
            IndexError: there is no such image.
        """
        images = torch.arange(len(self.mean))[index].reshape(-1).tolist()
        selected = slice(images[0], images[0] + 1) if isinstance(index, int) else index
        left_out = tuple(self.left_out[image] for image in images) if self.left_out else ()
        void = bool(left_out) and all(left_out)
        names = [name for name, traits in MAPS.items() if not (void and traits.guarantee)]
        part = self.only(names).map(lambda maps: maps[selected])
        return replace(part, left_out=left_out if any(left_out) else None)

    def _repr_html_(self) -> str:
        """Return the maps of the first images and their ranges as HTML, for notebooks."""
        return prediction_html(self)

    def maps(self) -> dict[str, Tensor]:
        """Return the computed maps by name."""
        all_maps = {name: getattr(self, name) for name in MAPS}
        return {name: maps for name, maps in all_maps.items() if maps is not None}

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Apply a function to every computed map."""
        changed: dict[str, Any] = {name: function(maps) for name, maps in self.maps().items()}
        return replace(self, **changed)

    def only(self, names: Collection[str]) -> Self:
        """Keep the mean and the maps of these names; set the other maps to ``None``."""
        dropped: dict[str, Any] = {name: None for name in MAPS if name != "mean" and name not in names}
        return replace(self, **dropped)

    def spread(self) -> Tensor:
        """Return :attr:`variance`.

        Raises:
            UsageError: the variance was not computed.
        """
        if self.variance is None:
            raise UsageError("this prediction has no uncertainty maps; predict with uncertainty=True")
        return self.variance


MAPS: dict[str, MapTraits] = {
    entry.name: entry.metadata["traits"] for entry in fields(Prediction) if "traits" in entry.metadata
}
"""Traits of the maps of a prediction, by name."""

Maps = TypeVar("Maps", Tensor, Prediction)


def in_order(parts: Sequence[Part[Maps]], cat: Callable[[list[Maps]], Maps]) -> Maps:
    """Concatenate the results of :func:`densemble.ensemble.membership.per_image` in the order of the batch.

    Args:
        parts: parts that together hold all images of the batch.
        cat: :func:`torch.cat` or :meth:`Prediction.cat`.
    """
    if len(parts) == 1:
        return parts[0].result
    order = torch.tensor([index for part in parts for index in part.indices]).argsort()
    return cat([part.result for part in parts])[order]
