"""The ensemble: members, weights, a rule and calibration as one ``nn.Module``."""

import math
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from densemble.ensemble.calibrate import Calibration, VarianceScaling
from densemble.ensemble.cascade import Cascade
from densemble.ensemble.combine import COMBINE, Rule, make_rule
from densemble.ensemble.guarantee import ConformalInterval, Guarantee
from densemble.ensemble.images import as_images
from densemble.ensemble.membership import unusable
from densemble.ensemble.prediction import Prediction
from densemble.ensemble.resize import resize_maps
from densemble.ensemble.uncertainty import Asked, RunningUncertainty, asked_maps, entropy
from densemble.ensemble.views import Viewed
from densemble.errors import ArtifactError, UsageError
from densemble.nets.arguments import unwrapped
from densemble.nets.dense import DenseModel
from densemble.nets.layers import resize
from densemble.shapes import Size
from densemble.tasks import Task, make_task

Member = DenseModel | Viewed


class Ensemble(nn.Module):
    """Several members that answer as one: images ``(B, 3, H, W)`` RGB in [0, 1] -> activated maps ``(B, K, h, w)``.

    Members run one after the other into running sums: with most rules memory does not grow with their number. A member
    whose map has another size than the first one's is resized to it.

    Args:
        members: dense models, or views of them, by name or in a row; all with the same K. Those wrapped by
            ``torch.compile`` or data parallelism are taken out of it.
        weights: one positive number each; default all 1. A member of weight 0 is left out: not run, not saved.
        task: what the maps mean, or its name; default saliency for one channel, segmentation for several.
        combine: row of ``COMBINE``.
        fitted: what a rule that is fitted learned from held-out data; one row per member that is left in.
        metrics: what was measured on held-out data, kept with the ensemble.
        temperatures: each member's logits are divided by its own; default 1.
        calibration: of the combined map, or of the variance of values.
        guarantee: what the sets of classes or the intervals of a prediction promise; void once a member is left out.
        reading: how pictures were read in training (``bands``, ``image_range``), kept for those that come later.
        min_members: a member whose map is not finite or of a wrong shape is left out of that prediction with a
            warning, as long as this many remain; default: all are needed.
        cascade: how to answer with fewer members where that is enough; only used where a policy of it is asked for.

    Raises:
        UsageError: no members, unequal channels, weights that are negative, not finite or of another number,
            temperatures that are not positive, a rule that does not suit the task or was not fitted, more
            ``min_members`` than members.
    """

    def __init__(
        self,
        members: Sequence[Member] | Mapping[str, Member],
        weights: Sequence[float] | None = None,
        task: Task | str | None = None,
        combine: str = "mean",
        metrics: dict[str, Any] | None = None,
        temperatures: Mapping[str, float] | None = None,
        reading: dict[str, Any] | None = None,
        fitted: Mapping[str, Tensor] | None = None,
        calibration: Calibration | None = None,
        guarantee: Guarantee | None = None,
        min_members: int | None = None,
        cascade: Cascade | None = None,
    ) -> None:
        super().__init__()
        if isinstance(members, Mapping):
            members = {name: unwrapped(member) for name, member in members.items()}
        else:
            members = [unwrapped(member) for member in members]
        named = dict(members) if isinstance(members, Mapping) else _name(members)
        if not named:
            raise UsageError("an ensemble needs at least one member")
        given = [1.0] * len(named) if weights is None else [float(weight) for weight in weights]
        if len(given) != len(named):
            raise UsageError(f"{len(given)} weights for {len(named)} members; give one each")
        if any(not math.isfinite(weight) or weight < 0 for weight in given) or not sum(given):
            raise UsageError(f"weights {given} must be >= 0, finite and not all 0")
        kept = {name: (m, w) for (name, m), w in zip(named.items(), given, strict=True) if w > 0}
        channels = {name: member.spec.out_channels for name, (member, _) in kept.items()}
        if len(set(channels.values())) > 1:
            raise UsageError(f"members give different numbers of channels: {channels}")
        taken = {name: member.spec.in_channels for name, (member, _) in kept.items()}
        if len(set(taken.values())) > 1:
            raise UsageError(f"members take images of different numbers of channels: {taken}")
        warm = dict.fromkeys(kept, 1.0) | {name: float(t) for name, t in (temperatures or {}).items() if name in kept}
        if any(not math.isfinite(value) or value <= 0 for value in warm.values()):
            raise UsageError(f"temperatures {warm} must be positive and finite")
        if min_members is not None and not 1 <= min_members <= len(kept):
            raise UsageError(f"min_members = {min_members} of {len(kept)} members; give 1 to {len(kept)}")
        self.members = nn.ModuleDict({name: member for name, (member, _) in kept.items()})
        total = sum(weight for _, weight in kept.values())
        # Weights that were divided already stay the same to the bit: of an ensemble that is saved, loaded or rewritten.
        total = 1.0 if math.isclose(total, 1, rel_tol=1e-12) else total
        self.weights = {name: weight / total for name, (_, weight) in kept.items()}
        self.combine = combine
        self.task = _as_task(task, next(iter(channels.values())))
        self.fitted = dict(fitted or {})
        self.rule()  # so that a rule that does not suit, or was not fitted, is refused here
        self.metrics = dict(metrics or {})
        self.temperatures = warm
        self.calibration = calibration
        self.guarantee = guarantee
        self.in_channels = next(iter(taken.values()))
        self.reading = dict(reading or {})
        self.min_members = min_members
        self.cascade = cascade
        self.left_out: dict[str, str] = {}
        """Members that could not be used, and why: of a damaged file, or in some prediction."""

    def named_members(self) -> Iterator[tuple[str, Member]]:
        """Names and members, in order."""
        for name, member in self.members.items():
            assert isinstance(member, DenseModel | Viewed)
            yield name, member

    def with_members(self, members: Mapping[str, Member]) -> "Ensemble":
        """The same weights, rule and calibration over other networks of the same names."""
        other = Ensemble(
            members, [self.weights[name] for name in members], self.task, self.combine, self.metrics, self.temperatures,
            self.reading, self.fitted, self.calibration, self.guarantee, self.min_members, self.cascade,
        )  # fmt: skip
        other.left_out |= self.left_out
        return other

    def rule(self) -> Rule:
        """A fresh accumulator of the members' maps."""
        return make_rule(self.combine, self.task, self.fitted)

    def member_maps(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Each member's name and activated maps ``(B, K, h, w)``, one after the other, all of one size.

        Raises:
            ArtifactError: a member's map is not finite or of a wrong shape, and it cannot be done without.
        """
        size: Size | None = None
        members = dict(self.named_members())
        for name, logits in self.member_logits(images):
            own = members[name].spec.out_size or (int(images.shape[-2]), int(images.shape[-1]))
            maps = self.task.activation(resize(logits, own))
            size = size or own
            yield name, resize_maps(maps, size, self.task.target_kind == "density")

    def member_logits(self, images: Tensor, names: Collection[str] | None = None) -> Iterator[tuple[str, Tensor]]:
        """Each member's name and logits ``(B, K, h, w)`` at its head's own size, divided by its temperature.

        Args:
            images: ``(B, C, H, W)`` in [0, 1].
            names: of the members that run; default all.

        Raises:
            ArtifactError: a member's logits are not finite or of a wrong shape, and it cannot be done without.
        """
        left = len(self.members)
        images = images.view_as(images)  # what fast members keep of a batch ends with it
        for name, member in self.named_members():
            if names is not None and name not in names:
                continue
            logits = member.coarse(images).float()
            reason = unusable(logits, len(images), self.task.out_channels)
            if reason is not None:
                left -= 1
                self._do_without(name, reason, left)
                continue
            yield name, logits / self.temperatures[name]

    def _do_without(self, name: str, reason: str, left: int) -> None:
        if self.min_members is None or left < self.min_members:
            least = "all are needed" if self.min_members is None else f"at least {self.min_members} are needed"
            raise ArtifactError(
                f"member '{name}' {reason}, {left} usable of {len(self.members)} remain and {least}; check the "
                "picture, leave the member out (`densemble assemble`), or go on without it: --min-members"
            )
        if COMBINE[self.combine].needs_all:
            raise ArtifactError(
                f"member '{name}' {reason}, and the rule '{self.combine}' was fitted for all members: assemble again "
                "without it, or with --combine mean"
            )
        self.left_out.setdefault(name, reason)
        warnings.warn(f"member '{name}' {reason}: left out of this prediction", stacklevel=4)

    def combined(self, rule: Rule) -> Tensor:
        """The rule's map ``(B, K, h, w)``, calibrated."""
        maps = rule.result()
        if self.calibration is None or isinstance(self.calibration, VarianceScaling):
            return maps
        return self.calibration.apply(maps)

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(B, 3, H, W)`` RGB in [0, 1] -> combined activated maps ``(B, K, h, w)``.

        Raises:
            UsageError: the images have another shape.
            ArtifactError: a member that yields no usable map, and cannot be done without.
        """
        rule, places = self.rule(), {name: place for place, name in enumerate(self.members)}
        for name, maps in self.member_maps(images):
            rule.add(maps, self.weights[name], places[name])
        return self.combined(rule)

    @torch.no_grad()
    def predict(self, images: Tensor | np.ndarray[Any, Any]) -> Prediction:
        """Combined map with uncertainty for images in memory.

        Args:
            images: tensor ``(B, C, H, W)`` or ``(C, H, W)``; array ``(B, H, W, C)`` or ``(H, W, C)``; uint8, or
                float in [0, 1]; C is 3, RGB, unless the members were made for other channels.

        Raises:
            UsageError: another shape, another type, or float values outside [0, 1].
            ArtifactError: a member that yields no usable map, and cannot be done without.
        """
        batch = as_images(images, self.in_channels).to(next(self.parameters()).device)
        return self.predict_maps(self.member_maps(batch))

    @torch.no_grad()
    def predict_members(self, batch: Tensor, uncertainty: Asked = True) -> Prediction:
        """The prediction for a float batch ``(B, 3, H, W)`` on the ensemble's device, ready to be served at H x W.

        The mean and what follows from it have the ensemble's size; what is computed over the members has H x W, see
        :meth:`predict_maps`.
        """
        return self.predict_maps(self.member_maps(batch), uncertainty, (int(batch.shape[-2]), int(batch.shape[-1])))

    def predict_maps(
        self, members: Iterator[tuple[str, Tensor]], uncertainty: Asked = True, size: Size | None = None
    ) -> Prediction:
        """The prediction from what :meth:`member_maps` gives.

        Args:
            members: names and maps ``(B, K, h, w)``.
            uncertainty: which maps of uncertainty; what only others need is not computed.
            size: (H, W) at which ``variance``, ``expected_entropy``, ``mutual_information``, ``disagreement`` and the
                guaranteed interval of a variance are computed, from the members' maps resized to it; default h x w.
        """
        asked = asked_maps(uncertainty, self.task.distribution)
        return self.conclude(*self.accumulate(members, asked, size), asked)

    def accumulate(
        self, members: Iterator[tuple[str, Tensor]], asked: frozenset[str], size: Size | None = None
    ) -> tuple[Tensor, RunningUncertainty | None]:
        """Combined and calibrated map ``(B, K, h, w)`` and :meth:`running` sums; arguments as :meth:`predict_maps`."""
        rule, places = self.rule(), {name: place for place, name in enumerate(self.members)}
        running, density = self.running(asked), self.task.target_kind == "density"
        for name, maps in members:
            rule.add(maps, self.weights[name], places[name])
            if running is not None:
                running.add(maps if size is None else resize_maps(maps, size, density), self.weights[name])
        return self.combined(rule), running

    def running(self, asked: frozenset[str]) -> RunningUncertainty | None:
        """Empty sums for the maps that are asked for and for the guarantee; ``None`` where neither needs any."""
        needed = asked - {"entropy"} | ({"variance"} if self._bounds_need_spread() else set())
        return RunningUncertainty(self.task.distribution, needed) if needed else None

    def conclude(
        self, mean: Tensor, running: RunningUncertainty | None, asked: frozenset[str], everyone: bool = True
    ) -> Prediction:
        """The prediction of a batch.

        Args:
            mean: combined and calibrated ``(B, K, h, w)``.
            running: over the members that were run; ``None``: only the entropy can be asked for.
            asked: names of the maps of uncertainty.
            everyone: all members were run: the guarantee was fitted for those.
        """
        distribution = self.task.distribution
        spread = running.variance() if running is not None and "variance" in running.maps else None
        scaling = self.calibration if isinstance(self.calibration, VarianceScaling) else None
        bounds = self.bounds(mean, spread) if everyone else None
        return Prediction(
            mean=mean,
            variance=spread if spread is None or scaling is None else scaling.apply(spread),
            entropy=entropy(mean, distribution) if "entropy" in asked else None,
            expected_entropy=None if running is None else running.expected_entropy(),
            mutual_information=None if running is None else running.mutual_information(),
            disagreement=None if running is None else running.disagreement(),
            label=mean.max(1).indices if distribution == "categorical" else None,
            included=self.included(mean) if everyone else None,
            lower=None if bounds is None else bounds[0],
            upper=None if bounds is None else bounds[1],
        )

    def _bounds_need_spread(self) -> bool:
        return isinstance(self.guarantee, ConformalInterval) and self.guarantee.floor is not None

    def included(self, mean: Tensor) -> Tensor | None:
        """Which classes the guaranteed set holds, bool ``(B, K, h, w)``, of calibrated maps of any size."""
        if self.left_out or self.guarantee is None or isinstance(self.guarantee, ConformalInterval):
            return None
        return self.guarantee.apply(mean)

    def bounds(self, mean: Tensor, spread: Tensor | None) -> tuple[Tensor, Tensor] | None:
        """Lower and upper end of the guaranteed interval ``(B, 1, H, W)``.

        Args:
            mean: values ``(B, 1, h, w)``.
            spread: variance over the members ``(B, 1, H, W)``, where the interval's width depends on it; the mean is
                resized to its size.
        """
        if self.left_out or not isinstance(self.guarantee, ConformalInterval):
            return None
        if self.guarantee.floor is None:
            return self.guarantee.apply(mean)
        assert spread is not None
        size = (int(spread.shape[-2]), int(spread.shape[-1]))
        values = resize_maps(mean, size, self.task.target_kind == "density")
        return self.guarantee.apply(torch.cat([values, spread], dim=1))


def _name(members: Sequence[Member]) -> dict[str, Member]:
    named: dict[str, Member] = {}
    for number, member in enumerate(members):
        plain = member.spec.backbone.removeprefix("timm/").replace("/", "-").replace(".", "_")
        named[plain if plain not in named else f"{plain}-{number}"] = member
    return named


def _as_task(task: Task | str | None, channels: int) -> Task:
    """The task; by its name with classes that are named by their numbers; a likely one where none is given."""
    if isinstance(task, Task):
        return task
    name = task or ("saliency" if channels == 1 else "segmentation")
    return make_task({"name": name, "classes": [str(k) for k in range(channels)]})
