"""Combination: turns the maps of several members into one prediction, whatever network or file the maps come from."""

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
from densemble.ensemble.uncertainty import Asked, RunningUncertainty, entropy, requested_maps
from densemble.errors import UsageError
from densemble.shapes import Size, size_of
from densemble.tasks import Task

MemberMaps = Tensor | Iterable[tuple[str, Tensor]]
"""Activated maps of the members. Stacked: ``(M, B, K, h, w)``, in the order of the weights. Streamed: pairs of a name
and maps ``(B, K, h, w)``, one member after the other; streamed maps may cover only some of the members."""


@dataclass(frozen=True, eq=False)
class Combination:
    """Weights, combination rule, calibration and guarantee of an ensemble.

    Attributes:
        task: meaning of the maps.
        weights: positive and finite weights by member name, in the order of the members.
        rule: row of ``COMBINE``.
        fitted: parameters that the rule learned from held-out data; one row per member.
        calibration: calibration of the combined map, or of the variance of values; ``None``: none.
        guarantee: guarantee for predictions by all members; ``None``: none, or it is void.
        unusable: members without a usable map of the current images, with the reason; see :attr:`Prediction.left_out`.

    Raises:
        UsageError: a weight is not positive and finite, or the rule does not suit the task or is not fitted.
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
        """Return the combination of some of the members. Weights stay; the guarantee is void if a member is missing.

        Raises:
            ArtifactError: the rule was fitted for all members.
        """
        indices = [index for index, name in enumerate(self.weights) if name in names]
        if len(indices) == len(self.weights):
            return self
        weights = {name: weight for name, weight in self.weights.items() if name in names}
        return replace(self, weights=weights, fitted=keep_members(self.rule, self.fitted, indices), guarantee=None)

    def accumulator(self) -> Rule:
        """Return an empty accumulator for the members' maps."""
        return make_rule(self.rule, self.task, self.fitted)

    def running(self, asked: frozenset[str]) -> RunningUncertainty | None:
        """Return empty sums for the requested uncertainty maps and the guarantee; ``None`` if neither needs sums."""
        needed = asked - {"entropy"} | ({"variance"} if self._interval_needs_variance() else set())
        return RunningUncertainty(self.task.distribution, needed) if needed else None

    def combine(self, maps: MemberMaps, running: RunningUncertainty | None = None, size: Size | None = None) -> Tensor:
        """Return the combined and calibrated map ``(B, K, h, w)``, in single precision or higher.

        Args:
            maps: maps of the members; see :data:`MemberMaps`.
            running: uncertainty sums; the members' maps are added to them too.
            size: (H, W) to which maps are resized before they are added to ``running``; default h x w.

        Raises:
            UsageError: stacked maps have the wrong shape or number of members.
        """
        rule, indices = self.accumulator(), {name: index for index, name in enumerate(self.weights)}
        for name, member_maps in self._streamed(maps):
            rule.add(member_maps, self.weights[name], indices[name])
            if running is not None:
                sized = member_maps if size is None else self._resized(member_maps, size)
                running.add(sized, self.weights[name])
        return self.calibrate(rule.result())

    def calibrate(self, combined: Tensor) -> Tensor:
        """Calibrate the map of the combination rule, ``(B, K, h, w)``."""
        if self.calibration is None or isinstance(self.calibration, VarianceScaling):
            return combined
        return self.calibration.apply(combined)

    def predict(self, maps: MemberMaps, uncertainty: Asked = True, size: Size | None = None) -> Prediction:
        """Compute the prediction from the members' maps.

        Args:
            maps: maps of the members; see :data:`MemberMaps`.
            uncertainty: requested uncertainty maps; anything that only the others need is not computed.
            size: (H, W) at which ``variance``, ``expected_entropy``, ``mutual_information``, ``disagreement`` and an
                interval that depends on the variance are computed, from resized maps of the members; default h x w.
        """
        asked = requested_maps(uncertainty, self.task.distribution)
        running = self.running(asked)
        return self.conclude(self.combine(maps, running, size), running, asked)

    def predict_at(self, maps: MemberMaps, size: Size) -> Prediction:
        """Compute the prediction with all uncertainty maps at (H, W); the combined map is resized to it too."""
        asked = requested_maps(True, self.task.distribution)
        running = self.running(asked)
        return self.conclude(self._resized(self.combine(maps, running, size), size), running, asked)

    def conclude(self, mean: Tensor, running: RunningUncertainty | None, asked: frozenset[str]) -> Prediction:
        """Build the prediction of a batch.

        Args:
            mean: combined and calibrated map ``(B, K, h, w)``.
            running: sums over the members that have run; ``None`` if only the entropy is requested.
            asked: names of the requested uncertainty maps.
        """
        distribution = self.task.distribution
        variance = running.variance() if running is not None and "variance" in running.maps else None
        scaling = self.calibration if isinstance(self.calibration, VarianceScaling) else None
        bounds = self._interval(mean, variance)
        return Prediction(
            mean=mean,
            variance=variance if variance is None or scaling is None else scaling.apply(variance),
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
        """Return which classes the guaranteed set holds, bool ``(B, K, h, w)``, for calibrated maps of any size."""
        if self.guarantee is None or isinstance(self.guarantee, ConformalInterval):
            return None
        return self.guarantee.apply(mean)

    def _interval(self, mean: Tensor, variance: Tensor | None) -> tuple[Tensor, Tensor] | None:
        """Compute the lower and the upper end of the guaranteed interval, ``(B, 1, H, W)``.

        Args:
            mean: values ``(B, 1, h, w)``.
            variance: variance over the members ``(B, 1, H, W)``, if the interval's width depends on it; the mean is
                resized to its size.
        """
        if not isinstance(self.guarantee, ConformalInterval):
            return None
        if not self._interval_needs_variance():
            return self.guarantee.apply(mean)
        assert variance is not None
        values = self._resized(mean, size_of(variance))
        return self.guarantee.apply(torch.cat([values, variance], dim=1))

    def _interval_needs_variance(self) -> bool:
        return isinstance(self.guarantee, ConformalInterval) and self.guarantee.floor is not None

    def _resized(self, maps: Tensor, size: Size) -> Tensor:
        return resize_maps(maps, size, self.task.target_kind == "density")

    def _streamed(self, maps: MemberMaps) -> Iterable[tuple[str, Tensor]]:
        if not isinstance(maps, Tensor):
            return maps
        if maps.ndim != 5 or len(maps) != len(self.weights):
            given = f"{tuple(maps.shape)} and {len(self.weights)} weights"
            raise UsageError(f"maps must be (M, B, K, h, w) with a weight for each of the M members, got {given}")
        per_member = (member_maps if maps.dtype.itemsize >= 4 else member_maps.float() for member_maps in maps)
        return zip(self.weights, per_member, strict=True)
