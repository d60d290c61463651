"""What an ensemble says about images: the combined map and how sure it is."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from densemble.errors import UsageError


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

    mean: Tensor
    variance: Tensor | None
    entropy: Tensor | None
    expected_entropy: Tensor | None
    mutual_information: Tensor | None
    disagreement: Tensor | None
    label: Tensor | None
    included: Tensor | None = None
    lower: Tensor | None = None
    upper: Tensor | None = None
    left_out: tuple[Mapping[str, str], ...] | None = None

    @classmethod
    def gathered(cls, parts: Sequence[tuple[Sequence[int], "Prediction"]]) -> "Prediction":
        """The prediction of a batch from those of its parts, each with the places of its images in the batch."""
        if len(parts) == 1:
            return parts[0][1]
        maps: dict[str, Any] = {
            name: _gathered([(places, getattr(part, name)) for places, part in parts], name) for name in MAPS
        }
        rows = {
            place: row
            for places, part in parts
            for place, row in zip(places, part.left_out or ({},) * len(places), strict=True)
        }
        left_out = tuple(rows[place] for place in sorted(rows)) if any(rows.values()) else None
        return cls(**maps, left_out=left_out)

    def row(self, place: int) -> "Prediction":
        """The prediction of one image of the batch, as a batch of one."""
        left_out = (self.left_out[place],) if self.left_out and self.left_out[place] else None
        maps: dict[str, Any] = {name: getattr(self, name) for name in MAPS}
        for name, batch in maps.items():
            void = batch is None or (left_out and name in _WITHOUT_GUARANTEE)
            maps[name] = None if void else batch[place : place + 1]
        return Prediction(**maps, left_out=left_out)

    def spread(self) -> Tensor:
        """:attr:`variance`, where it was computed.

        Raises:
            UsageError: this was predicted without uncertainty.
        """
        if self.variance is None:
            raise UsageError("this was predicted without uncertainty; predict with uncertainty=True")
        return self.variance


MAPS = tuple(field.name for field in fields(Prediction) if field.name != "left_out")
"""Names of the maps of a prediction."""
_WITHOUT_GUARANTEE = {"included": True, "lower": -math.inf, "upper": math.inf}


def in_order(parts: Sequence[tuple[Sequence[int], Tensor]]) -> Tensor:
    """Maps ``(B, ...)`` of a batch from those of its parts, each with the places of its images in the batch."""
    if len(parts) == 1:
        return parts[0][1]
    order = torch.tensor([place for places, _ in parts for place in places]).argsort()
    maps = torch.cat([maps for _, maps in parts])
    return maps[order.to(maps.device)]


def _gathered(parts: Sequence[tuple[Sequence[int], Tensor | None]], name: str) -> Tensor | None:
    known = next((maps for _, maps in parts if maps is not None), None)
    if known is None:
        return None
    unknown = _WITHOUT_GUARANTEE.get(name, math.nan)
    return in_order(
        [
            (places, known.new_full((len(places), *known.shape[1:]), unknown) if maps is None else maps)
            for places, maps in parts
        ]
    )
