"""Combination: how the maps of several members become one prediction, whatever gave the maps."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from densemble.ensemble.calibrate import Calibration, VarianceScaling
from densemble.ensemble.combine import Rule, make_rule
from densemble.ensemble.guarantee import ConformalInterval, Guarantee
from densemble.ensemble.membership import keep_members
from densemble.ensemble.prediction import Prediction
from densemble.ensemble.resize import resize_maps
from densemble.ensemble.uncertainty import Asked, RunningUncertainty, asked_maps, entropy
from densemble.errors import UsageError
from densemble.shapes import Size, size_of
from densemble.tasks import Task

MemberMaps = Tensor | Iterable[tuple[str, Tensor]]
"""Activated maps of the members: stacked ``(M, B, K, h, w)`` in the order of the weights, or streamed as pairs of a
name and maps ``(B, K, h, w)``, one member after the other. Streamed maps may be of some of the members only."""


@dataclass(frozen=True, eq=False)
class Combination:
    """Weights, combination rule, calibration and guarantee of an ensemble.

    Attributes:
        task: what the maps mean.
        weights: positive and finite, by the members' names, in their order.
        rule: row of ``COMBINE``.
        fitted: what the rule learned from held-out data; one row per member.
        calibration: of the combined map, or of the variance of values; ``None``: none.
        guarantee: of predictions by all members; ``None``: none, or it is void.
        unusable: members that gave no usable map of the images at hand, and why; see :attr:`Prediction.left_out`.

    Raises:
        UsageError: a weight that is not positive and finite, or a rule that does not suit the task or was not fitted.
    """

    task: Task
    weights: dict[str, float]
    rule: str = "mean"
    fitted: dict[str, Tensor] = field(default_factory=dict)
    calibration: Calibration | None = None
    guarantee: Guarantee | None = None
    unusable: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not all(math.isfinite(weight) and weight > 0 for weight in self.weights.values()):
            given = list(self.weights.values())
            raise UsageError(f"weights {given} must be positive and finite; leave members without weight out")
        self.accumulator()

    def keep(self, names: Collection[str]) -> "Combination":
        """The combination of some of the members: their weights stay, the guarantee is void if one is missing.

        Raises:
            ArtifactError: the rule was fitted for all members.
        """
        places = [place for place, name in enumerate(self.weights) if name in names]
        if len(places) == len(self.weights):
            return self
        weights = {name: weight for name, weight in self.weights.items() if name in names}
        return replace(self, weights=weights, fitted=keep_members(self.rule, self.fitted, places), guarantee=None)

    def accumulator(self) -> Rule:
        """A fresh accumulator of the members' maps."""
        return make_rule(self.rule, self.task, self.fitted)

    def running(self, asked: frozenset[str]) -> RunningUncertainty | None:
        """Empty sums for the uncertainty maps that are asked for and for the guarantee; ``None``: neither needs any."""
        needed = asked - {"entropy"} | ({"variance"} if self._bounds_need_spread() else set())
        return RunningUncertainty(self.task.distribution, needed) if needed else None

    def combine(self, maps: MemberMaps, running: RunningUncertainty | None = None, size: Size | None = None) -> Tensor:
        """The combined and calibrated map ``(B, K, h, w)``, at least in single precision.

        Args:
            maps: of the members; see :data:`MemberMaps`.
            running: the members' maps are added to it as well.
            size: (H, W) to which maps are resized before they are added to ``running``; default h x w.

        Raises:
            UsageError: stacked maps of another shape or of another number of members.
        """
        rule, places = self.accumulator(), {name: place for place, name in enumerate(self.weights)}
        for name, member_maps in self._streamed(maps):
            rule.add(member_maps, self.weights[name], places[name])
            if running is not None:
                sized = member_maps if size is None else self._resized(member_maps, size)
                running.add(sized, self.weights[name])
        return self.calibrate(rule.result())

    def calibrate(self, combined: Tensor) -> Tensor:
        """The rule's map ``(B, K, h, w)``, calibrated."""
        if self.calibration is None or isinstance(self.calibration, VarianceScaling):
            return combined
        return self.calibration.apply(combined)

    def predict(self, maps: MemberMaps, uncertainty: Asked = True, size: Size | None = None) -> Prediction:
        """The prediction from the members' maps.

        Args:
            maps: of the members; see :data:`MemberMaps`.
            uncertainty: which maps of uncertainty; what only others need is not computed.
            size: (H, W) at which ``variance``, ``expected_entropy``, ``mutual_information``, ``disagreement`` and the
                guaranteed interval of a variance are computed, from the members' maps resized to it; default h x w.
        """
        asked = asked_maps(uncertainty, self.task.distribution)
        running = self.running(asked)
        return self.conclude(self.combine(maps, running, size), running, asked)

    def predict_at(self, maps: MemberMaps, size: Size) -> Prediction:
        """The prediction with all uncertainty at (H, W): the combined map is resized to it as well."""
        asked = asked_maps(True, self.task.distribution)
        running = self.running(asked)
        return self.conclude(self._resized(self.combine(maps, running, size), size), running, asked)

    def conclude(self, mean: Tensor, running: RunningUncertainty | None, asked: frozenset[str]) -> Prediction:
        """The prediction of a batch.

        Args:
            mean: combined and calibrated ``(B, K, h, w)``.
            running: over the members that were run; ``None``: only the entropy can be asked for.
            asked: names of the maps of uncertainty.
        """
        distribution = self.task.distribution
        spread = running.variance() if running is not None and "variance" in running.maps else None
        scaling = self.calibration if isinstance(self.calibration, VarianceScaling) else None
        bounds = self._bounds(mean, spread)
        return Prediction(
            mean=mean,
            variance=spread if spread is None or scaling is None else scaling.apply(spread),
            entropy=entropy(mean, distribution) if "entropy" in asked else None,
            expected_entropy=None if running is None else running.expected_entropy(),
            mutual_information=None if running is None else running.mutual_information(),
            disagreement=None if running is None else running.disagreement(),
            label=mean.max(1).indices if distribution == "categorical" else None,
            included=self.included(mean),
            lower=None if bounds is None else bounds[0],
            upper=None if bounds is None else bounds[1],
            left_out=(self.unusable,) * len(mean) if self.unusable else None,
        )

    def included(self, mean: Tensor) -> Tensor | None:
        """Which classes the guaranteed set holds, bool ``(B, K, h, w)``, of calibrated maps of any size."""
        if self.guarantee is None or isinstance(self.guarantee, ConformalInterval):
            return None
        return self.guarantee.apply(mean)

    def _bounds(self, mean: Tensor, spread: Tensor | None) -> tuple[Tensor, Tensor] | None:
        """Lower and upper end of the guaranteed interval ``(B, 1, H, W)``.

        Args:
            mean: values ``(B, 1, h, w)``.
            spread: variance over the members ``(B, 1, H, W)``, where the interval's width depends on it; the mean is
                resized to its size.
        """
        if not isinstance(self.guarantee, ConformalInterval):
            return None
        if not self._bounds_need_spread():
            return self.guarantee.apply(mean)
        assert spread is not None
        values = self._resized(mean, size_of(spread))
        return self.guarantee.apply(torch.cat([values, spread], dim=1))

    def _bounds_need_spread(self) -> bool:
        return isinstance(self.guarantee, ConformalInterval) and self.guarantee.floor is not None

    def _resized(self, maps: Tensor, size: Size) -> Tensor:
        return resize_maps(maps, size, self.task.target_kind == "density")

    def _streamed(self, maps: MemberMaps) -> Iterable[tuple[str, Tensor]]:
        if not isinstance(maps, Tensor):
            return maps
        if maps.ndim != 5 or len(maps) != len(self.weights):
            given = f"{tuple(maps.shape)} and {len(self.weights)} weights"
            raise UsageError(f"maps must be (M, B, K, h, w) with a weight for each of M members, got {given}")
        rows = (member_maps if maps.dtype.itemsize >= 4 else member_maps.float() for member_maps in maps)
        return zip(self.weights, rows, strict=True)
