"""The ensemble: members, weights, a rule and calibration as one ``nn.Module``."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from densemble.ensemble.arguments import (
    Member,
    kept_weights,
    members_of,
    positive_temperatures,
    require_least,
    require_parts,
    task_of,
    tensors_of,
)
from densemble.ensemble.calibrate import Calibration, VarianceScaling
from densemble.ensemble.cascade import Cascade
from densemble.ensemble.combine import COMBINE, Rule, make_rule
from densemble.ensemble.guarantee import ConformalInterval, Guarantee
from densemble.ensemble.images import as_images, require_tensor
from densemble.ensemble.membership import UnusableMaps, keep_members, per_image, require_usable
from densemble.ensemble.prediction import Prediction, in_order
from densemble.ensemble.resize import resize_maps
from densemble.ensemble.state import (
    OLDER,
    PARTS,
    describe,
    described,
    kinds,
    pack,
    require_no_prefix,
    require_same_members,
    unpack,
)
from densemble.ensemble.uncertainty import Asked, RunningUncertainty, asked_maps, entropy
from densemble.ensemble.views import Viewed
from densemble.errors import UsageError
from densemble.nets.dense import DenseModel
from densemble.nets.modes import eval_mode
from densemble.shapes import Size
from densemble.tasks import Task


class Ensemble(nn.Module):
    """Several members that answer as one: images ``(B, 3, H, W)`` RGB in [0, 1] -> activated maps ``(B, K, h, w)``.

    Members run one after the other into running sums: with most rules memory does not grow with their number. A member
    whose map has another size than the first one's is resized to it.

    Args:
        members: dense models, or views of them, by name or in a row; all with the same K. Names hold no dot. Those
            wrapped by ``torch.compile`` or data parallelism are taken out of it.
        weights: one number each, in a row or by name; default all 1. A member of weight 0 is left out: not run, not
            saved.
        task: what the maps mean, or its name; default saliency for one channel, segmentation for several.
        combine: row of ``COMBINE``.
        fitted: what a rule that is fitted learned from held-out data; one row per member that is left in.
        metrics: what was measured on held-out data, kept with the ensemble.
        temperatures: each member's logits are divided by its own; in a row, or by name, then default 1.
        calibration: of the combined map, or of the variance of values.
        guarantee: what the sets of classes or the intervals of a prediction promise; void once a member is left out.
        reading: how pictures were read in training (``bands``, ``image_range``), kept for those that come later.
        min_members: a member whose map of an image is not finite or of a wrong shape is left out of the prediction of
            that image with a warning, as long as this many remain; default: all are needed.
        cascade: how to answer with fewer members where that is enough; only used where a policy of it is asked for.

    Raises:
        UsageError: no members, something that is none, a name that cannot be one, unequal channels, weights that are
            negative, not finite or of another number, temperatures that are not positive, names of no member, a rule
            that does not suit the task or was not fitted, more ``min_members`` than members.
    """

    def __init__(
        self,
        members: Iterable[Member] | Mapping[str, Member] | Member,
        weights: Sequence[float] | Mapping[str, float] | None = None,
        task: Task | str | None = None,
        combine: str = "mean",
        metrics: dict[str, Any] | None = None,
        temperatures: Mapping[str, float] | Sequence[float] | None = None,
        reading: dict[str, Any] | None = None,
        fitted: Mapping[str, Tensor] | None = None,
        calibration: Calibration | None = None,
        guarantee: Guarantee | None = None,
        min_members: int | None = None,
        cascade: Cascade | None = None,
    ) -> None:
        super().__init__()
        require_parts(
            combine=combine, calibration=calibration, guarantee=guarantee, cascade=cascade, metrics=metrics,
            reading=reading, fitted=fitted,
        )  # fmt: skip
        named = members_of(members)
        self.weights = kept_weights(weights, named)
        kept = {name: named[name] for name in self.weights}
        channels = {name: member.spec.out_channels for name, member in kept.items()}
        if len(set(channels.values())) > 1:
            raise UsageError(f"members give different numbers of channels: {channels}")
        taken = {name: member.spec.in_channels for name, member in kept.items()}
        if len(set(taken.values())) > 1:
            raise UsageError(f"members take images of different numbers of channels: {taken}")
        heat = positive_temperatures(temperatures, named)
        require_least(min_members, len(kept))
        self.members = nn.ModuleDict(kept)
        self.combine = combine
        self.task = task_of(task, next(iter(channels.values())))
        self.fitted = tensors_of(fitted)
        self.rule()  # so that a rule that does not suit, or was not fitted, is refused here
        self.metrics = dict(metrics or {})
        self.temperatures = {name: heat[name] for name in kept}
        self.calibration = calibration
        self.guarantee = guarantee
        self.in_channels = next(iter(taken.values()))
        self.out_size = next(member.spec.out_size for member in kept.values())
        self.reading = dict(reading or {})
        self.min_members = min_members
        self.cascade = cascade
        self.unusable: dict[str, str] = {}
        """Members that :meth:`without` took away, and why."""
        self.left_out: dict[str, str] = {}
        """Members that it had to be made without, and why, such as those that are damaged in a file."""

    def named_members(self) -> Iterator[tuple[str, Member]]:
        """Names and members, in order."""
        for name, member in self.members.items():
            assert isinstance(member, DenseModel | Viewed)
            yield name, member

    def with_members(self, members: Mapping[str, Member], fitted: Mapping[str, Tensor] | None = None) -> "Ensemble":
        """The same weights, rule and calibration over other networks of the same names; ``fitted`` default the same."""
        other = Ensemble(
            members, [self.weights[name] for name in members], self.task, self.combine, self.metrics,
            {name: self.temperatures[name] for name in members}, self.reading,
            self.fitted if fitted is None else fitted, self.calibration, self.guarantee,
            self.min_members, self.cascade,
        )  # fmt: skip
        other.left_out, other.unusable = dict(self.left_out), dict(self.unusable)
        other.out_size = self.out_size
        return other

    def without(self, error: UnusableMaps) -> "Ensemble":
        """The same networks but for one; what the others weigh grows, and the guarantee is void.

        Args:
            error: says which member, and why.

        Raises:
            ArtifactError: too few remain, or the rule was fitted for all.
        """
        left, total = len(self.members) - 1, len(self.members) + len(self.unusable)
        member = self.members[error.member]
        if self.min_members is None or left < self.min_members:
            least = "all are needed" if self.min_members is None else f"at least {self.min_members} are needed"
            raise error.final(
                member,
                f"{left} usable of {total} remain and {least}; check the image, leave the member out "
                "(`densemble assemble`), or go on without it: --min-members",
            )
        if COMBINE[self.combine].needs_all:
            consequence = (
                f"and the rule '{self.combine}' was fitted for all members: assemble again without it, or with"
            )
            raise error.final(member, f"{consequence} --combine mean")
        others = {name: own for name, own in self.named_members() if name != error.member}
        places = [place for place, name in enumerate(self.members) if name in others]
        reduced = self.with_members(others, keep_members(self.combine, self.fitted, places))
        reduced.unusable[error.member] = error.reason
        reduced.training = self.training
        return reduced

    def get_extra_state(self) -> Tensor:
        """Part of ``state_dict()``: weights, temperatures, rule, calibration, guarantee, cascade and task."""
        own = {"weights": self.weights, "fitted": self.fitted, "min_members": self.min_members}
        return pack({"members": kinds(self.named_members()), "left_out": self.left_out, **own, **describe(self)})

    def set_extra_state(self, state: Any) -> None:
        """Part of ``load_state_dict()``: takes over all that :meth:`get_extra_state` gave.

        Raises:
            UsageError: it is of an ensemble of other members, or it was changed.
        """
        values = unpack(state)
        require_same_members(values["members"], kinds(self.named_members()))
        members, weights = dict(self.named_members()), values["weights"]
        fitted = {name: torch.tensor(numbers) for name, numbers in values["fitted"].items()}
        loaded = Ensemble(
            {name: members[name] for name in weights}, list(weights.values()), fitted=fitted,
            min_members=values["min_members"], **described(values),
        )  # fmt: skip
        loaded.left_out |= values["left_out"]
        for name in ("members", "weights", "fitted", "min_members", "left_out", "out_size", *PARTS):
            setattr(self, name, getattr(loaded, name))

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """See :class:`torch.nn.Module`; the members must be those of the saved ensemble.

        Raises:
            UsageError: the state is of other members, or has only their tensors, as those of older versions have; with
                ``strict=False`` the latter leave weights, temperatures, rule and calibration as they are.
        """
        if strict and "_extra_state" not in state_dict:
            require_no_prefix(state_dict)
            raise UsageError(OLDER)
        return super().load_state_dict(state_dict, strict, assign)

    def rule(self) -> Rule:
        """A fresh accumulator of the members' maps."""
        return make_rule(self.combine, self.task, self.fitted)

    def member_maps(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Each member's name and activated maps ``(B, K, h, w)``, one after the other, all of one size.

        Raises:
            UnusableMaps: a member's map of some of the images is not finite or of a wrong shape.
        """
        size = self.map_size(images)
        images = images.view_as(images)  # what fast members keep of a batch ends with it
        for name, member in self.named_members():
            logits = member(images).float()
            require_usable(
                name, logits, images.shape[0], self.task.out_channels
            )  # len() would fix the batch in exports
            maps = self.task.activation(logits / self.temperatures[name])
            yield name, resize_maps(maps, size, self.task.target_kind == "density")

    def map_size(self, images: Tensor) -> Size:
        """(h, w) of the combined map of images ``(B, C, H, W)``."""
        return self.out_size or (int(images.shape[-2]), int(images.shape[-1]))

    def coarse_logits(self, name: str, images: Tensor) -> Tensor:
        """A member's logits ``(B, K, h, w)`` at its head's own size, divided by its temperature.

        Args:
            name: of the member.
            images: ``(B, C, H, W)`` in [0, 1].

        Raises:
            UnusableMaps: for some of the images they are not finite or of a wrong shape.
        """
        member = self.members[name]
        assert isinstance(member, DenseModel | Viewed)
        logits = member.coarse(images).float()
        require_usable(name, logits, len(images), self.task.out_channels)
        return logits / self.temperatures[name]

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
        if torch.compiler.is_compiling():
            return self._combine(images)  # which images can be used depends on their values
        require_tensor(images)
        parts = per_image(self, images, Ensemble._combine, _warn)
        return in_order(parts, torch.cat)

    def _combine(self, images: Tensor) -> Tensor:
        rule, places = self.rule(), {name: place for place, name in enumerate(self.members)}
        for name, maps in self.member_maps(images):
            rule.add(maps, self.weights[name], places[name])
        return self.combined(rule)

    @torch.no_grad()
    def predict(self, images: Any) -> Prediction:
        """Combined map with uncertainty for images in memory, in eval mode whatever mode the ensemble is in.

        Args:
            images: tensor ``(B, C, H, W)`` or ``(C, H, W)``; array ``(B, H, W, C)`` or ``(H, W, C)``; uint8, or
                float in [0, 1]; C is 3, RGB, unless the members were made for other channels; a PIL image; or a row
                of these of one size.

        Raises:
            UsageError: another shape, another type, or float values outside [0, 1].
            ArtifactError: a member that yields no usable map, and cannot be done without.
        """
        batch = as_images(images, self.in_channels).to(next(self.parameters()).device)
        with eval_mode(self):
            parts = per_image(self, batch, lambda able, part: able.predict_maps(able.member_maps(part)), _warn)
        return in_order(parts, Prediction.cat)

    @torch.no_grad()
    def predict_members(self, batch: Tensor, uncertainty: Asked = True) -> Prediction:
        """The prediction for a float batch ``(B, 3, H, W)`` on the ensemble's device, ready to be served at H x W.

        The mean and what follows from it have the ensemble's size; what is computed over the members has H x W, see
        :meth:`predict_maps`. Members that an image was predicted without are in :attr:`Prediction.left_out`.

        Raises:
            ArtifactError: a member that yields no usable map, and cannot be done without.
        """
        size = (int(batch.shape[-2]), int(batch.shape[-1]))
        with eval_mode(self):
            parts = per_image(
                self, batch, lambda able, part: able.predict_maps(able.member_maps(part), uncertainty, size)
            )
        return in_order(parts, Prediction.cat)

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
            left_out=(self.unusable,) * len(mean) if self.unusable else None,
        )

    def _bounds_need_spread(self) -> bool:
        return isinstance(self.guarantee, ConformalInterval) and self.guarantee.floor is not None

    def included(self, mean: Tensor) -> Tensor | None:
        """Which classes the guaranteed set holds, bool ``(B, K, h, w)``, of calibrated maps of any size."""
        if self.left_out or self.unusable or self.guarantee is None or isinstance(self.guarantee, ConformalInterval):
            return None
        return self.guarantee.apply(mean)

    def bounds(self, mean: Tensor, spread: Tensor | None) -> tuple[Tensor, Tensor] | None:
        """Lower and upper end of the guaranteed interval ``(B, 1, H, W)``.

        Args:
            mean: values ``(B, 1, h, w)``.
            spread: variance over the members ``(B, 1, H, W)``, where the interval's width depends on it; the mean is
                resized to its size.
        """
        if self.left_out or self.unusable or not isinstance(self.guarantee, ConformalInterval):
            return None
        if self.guarantee.floor is None:
            return self.guarantee.apply(mean)
        assert spread is not None
        size = (int(spread.shape[-2]), int(spread.shape[-1]))
        values = resize_maps(mean, size, self.task.target_kind == "density")
        return self.guarantee.apply(torch.cat([values, spread], dim=1))


def _warn(error: UnusableMaps) -> None:
    warnings.warn(f"{error}: left out of this prediction", stacklevel=4)
