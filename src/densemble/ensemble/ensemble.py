"""The ensemble: members, weights, combination rule and calibration as one ``nn.Module``."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from densemble.ensemble.calibrate import Calibration
from densemble.ensemble.cascade import Cascade
from densemble.ensemble.combination import Combination
from densemble.ensemble.combine import rule_row
from densemble.ensemble.combine.user_rule import Combine
from densemble.ensemble.ensemble_arguments import (
    Member,
    kept_weights,
    members_of,
    positive_temperatures,
    require_least,
    require_parts,
    task_of,
    tensors_of,
)
from densemble.ensemble.ensemble_html import ensemble_html
from densemble.ensemble.guarantee import Guarantee
from densemble.ensemble.input_images import as_images, require_tensor
from densemble.ensemble.member_views import ViewedMember
from densemble.ensemble.membership import UnusableMaps, per_image, require_usable
from densemble.ensemble.prediction import Prediction, in_order
from densemble.ensemble.resize import resize_maps
from densemble.ensemble.state import (
    OLDER,
    PARTS,
    describe,
    described,
    member_settings,
    pack,
    require_no_prefix,
    require_same_members,
    require_same_rule,
    unpack,
)
from densemble.ensemble.uncertainty import Asked
from densemble.errors import UsageError
from densemble.nets.dense import DenseModel
from densemble.nets.modes import eval_mode
from densemble.shapes import Size, size_of
from densemble.tasks import Task
from densemble.user_code import importable_name


class Ensemble(nn.Module):
    """Combines several members: images ``(B, 3, H, W)`` RGB in [0, 1] -> activated maps ``(B, K, h, w)``.

    Members run one after the other and are added to running sums, so with most rules memory does not grow with their
    number. Maps of another size than the first member's are resized to it.

    Args:
        members: dense models or views of them, as a dict by name or as a sequence; all with the same K. Names must not
            contain a dot. Wrappers of ``torch.compile`` and data parallelism are removed.
        weights: one number per member, as a sequence or by name; default 1 each. A member of weight 0 is left out: it
            is neither run nor saved.
        task: meaning of the maps, or name of the task; default saliency for one channel, segmentation for several.
        combine: row of ``COMBINE``; or a function of ``(maps, weights)``, itself or as ``package.module:NAME``, see
            docs/how-to/own-parts.md.
        metrics: scores measured on held-out data, stored with the ensemble.
        temperatures: divisors of the members' logits, as a sequence, or by name with a default of 1.
        reading: how images were read in training (``bands``, ``image_range``); later images are read in the same way.
        fitted: parameters that a fitted rule learned from held-out data; one row per member with a weight above 0.
        calibration: calibration of the combined map, or of the variance of values.
        guarantee: guarantee for the sets or intervals of a prediction; void once a member is left out.
        min_members: if a member's map of an image is not finite or has a wrong shape, that image is predicted without
            the member, with a warning, as long as at least this many members remain; default: all are needed.
        cascade: policies for predicting with fewer members; used only if a policy is requested.

    Raises:
        UsageError: there are no members, one is not a dense model, a name is not allowed, or numbers of channels
            differ; weights are negative, not finite, all 0 or of the wrong number; a temperature is not positive; a
            name matches no member; the rule does not suit the task or is not fitted; or ``min_members`` is larger
            than the number of members.
    """

    def __init__(
        self,
        members: Iterable[Member] | Mapping[str, Member] | Member,
        weights: Sequence[float] | Mapping[str, float] | None = None,
        task: Task | str | None = None,
        combine: str | Combine = "mean",
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
        combine = importable_name(combine, "combine") if callable(combine) else combine
        require_parts(
            combine=combine, calibration=calibration, guarantee=guarantee, cascade=cascade, metrics=metrics,
            reading=reading, fitted=fitted,
        )  # fmt: skip
        named = members_of(members)
        shares = kept_weights(weights, named)
        kept = {name: named[name] for name in shares}
        channels = {name: member.spec.out_channels for name, member in kept.items()}
        if len(set(channels.values())) > 1:
            raise UsageError(f"members give different numbers of channels: {channels}")
        in_channels = {name: member.spec.in_channels for name, member in kept.items()}
        if len(set(in_channels.values())) > 1:
            raise UsageError(f"members take images of different numbers of channels: {in_channels}")
        given_temperatures = positive_temperatures(temperatures, named)
        require_least(min_members, len(kept))
        self.members = nn.ModuleDict(kept)
        task = task_of(task, next(iter(channels.values())))
        self.combination = Combination(task, shares, combine, tensors_of(fitted), calibration, guarantee)
        self.metrics = dict(metrics or {})
        self.temperatures = {name: given_temperatures[name] for name in kept}
        self.in_channels = next(iter(in_channels.values()))
        self.out_size = next(member.spec.out_size for member in kept.values())
        self.reading = dict(reading or {})
        self.min_members = min_members
        self.cascade = cascade
        self.left_out: dict[str, str] = {}
        """Members missing when the ensemble was built, with the reason, for example damaged in the file."""

    @property
    def task(self) -> Task:
        """Meaning of the maps."""
        return self.combination.task

    @property
    def weights(self) -> dict[str, float]:
        """Positive weights by member name, summing to 1."""
        return self.combination.weights

    @property
    def combine(self) -> str:
        """Name of the combination rule."""
        return self.combination.rule

    @property
    def fitted(self) -> dict[str, Tensor]:
        """Parameters that the rule learned from held-out data."""
        return self.combination.fitted

    @property
    def calibration(self) -> Calibration | None:
        """Calibration of the combined map, or of the variance of values."""
        return self.combination.calibration

    @property
    def guarantee(self) -> Guarantee | None:
        """Guarantee for the sets or intervals of a prediction; ``None`` once a member is missing."""
        return self.combination.guarantee

    @property
    def unusable(self) -> Mapping[str, str]:
        """Members removed by :meth:`without`, with the reason."""
        return self.combination.unusable

    def _repr_html_(self) -> str:
        """Return members, weights, scores, rule, calibration and guarantee as HTML, for notebooks."""
        return ensemble_html(self)

    def named_members(self) -> Iterator[tuple[str, Member]]:
        """Iterate over names and members, in order."""
        for name, member in self.members.items():
            assert isinstance(member, DenseModel | ViewedMember)
            yield name, member

    def with_members(self, members: Mapping[str, Member]) -> "Ensemble":
        """Return an ensemble with the same weights, rule and calibration, but other networks.

        Args:
            members: networks by the names of this ensemble's members, all or some of them.

        Raises:
            ArtifactError: a member is missing and the rule was fitted for all members.
        """
        names = sorted(members, key=list(self.members).index)
        kept = self.combination.keep(names)
        parts = {name: getattr(self, name) for name in PARTS}
        parts |= {"temperatures": {name: self.temperatures[name] for name in names}, "guarantee": kept.guarantee}
        other = Ensemble(
            {name: members[name] for name in names}, kept.weights, fitted=kept.fitted, min_members=self.min_members,
            **parts,
        )  # fmt: skip
        other.combination = replace(other.combination, unusable=self.unusable)
        other.leave_out(self.left_out)
        other.out_size = self.out_size
        return other

    def leave_out(self, members: Mapping[str, str]) -> None:
        """Record members missing when the ensemble was built, with the reason; any such member voids the guarantee."""
        self.left_out |= members
        if self.left_out:
            self.combination = replace(self.combination, guarantee=None)

    def without(self, error: UnusableMaps) -> "Ensemble":
        """Return the ensemble without one member: the other shares grow, and the guarantee is void.

        Args:
            error: names the member and the reason.

        Raises:
            ArtifactError: too few members remain, or the rule was fitted for all members.
        """
        remaining, total = len(self.members) - 1, len(self.members) + len(self.unusable)
        member = self.members[error.member]
        if self.min_members is None or remaining < self.min_members:
            least = "all are needed" if self.min_members is None else f"at least {self.min_members} are needed"
            raise error.final(
                member,
                f"{remaining} usable of {total} remain and {least}; check the image, leave the member out "
                "(`densemble assemble`), or go on without it: --min-members",
            )
        if rule_row(self.combine).needs_all:
            raise error.final(
                member,
                f"and the rule '{self.combine}' was fitted for all members: assemble again without it, or with "
                "--combine mean",
            )
        others = {name: member for name, member in self.named_members() if name != error.member}
        reduced = self.with_members(others)
        unusable = {**self.unusable, error.member: error.reason}
        reduced.combination = replace(reduced.combination, unusable=unusable)
        reduced.training = self.training
        return reduced

    def get_extra_state(self) -> Tensor:
        """Part of ``state_dict()``: weights, temperatures, rule, calibration, guarantee, cascade and task."""
        settings = member_settings(self.named_members())
        parts = {"weights": self.weights, "fitted": self.fitted, "min_members": self.min_members}
        return pack({"members": settings, "left_out": self.left_out, **parts, **describe(self)})

    def set_extra_state(self, state: Any) -> None:
        """Part of ``load_state_dict()``: restores everything that :meth:`get_extra_state` returned.

        Raises:
            UsageError: the state belongs to an ensemble of other members, or was modified.
        """
        values = unpack(state)
        require_same_rule(values["combine"], self.combine)
        require_same_members(values["members"], member_settings(self.named_members()))
        members, weights = dict(self.named_members()), values["weights"]
        fitted = {name: torch.tensor(numbers) for name, numbers in values["fitted"].items()}
        loaded = Ensemble(
            {name: members[name] for name in weights}, list(weights.values()), fitted=fitted,
            min_members=values["min_members"], **described(values),
        )  # fmt: skip
        loaded.leave_out(values["left_out"])
        for name in (
            "members", "combination", "temperatures", "cascade", "reading", "metrics", "min_members", "left_out",
            "out_size",
        ):  # fmt: skip
            setattr(self, name, getattr(loaded, name))

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load a state, see :class:`torch.nn.Module`; the members must be those of the saved ensemble.

        Raises:
            UsageError: the state has other members, or only their tensors, as states of older versions have. With
                ``strict=False`` such a state loads, and weights, temperatures, rule and calibration stay unchanged.
        """
        if strict and "_extra_state" not in state_dict:
            require_no_prefix(state_dict)
            raise UsageError(OLDER)
        return super().load_state_dict(state_dict, strict, assign)

    def member_maps(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Iterate over names and activated maps ``(B, K, h, w)`` of the members, all of one size.

        Raises:
            UnusableMaps: a member's map of some of the images is not finite or has a wrong shape.
        """
        images = images.view_as(images)  # a new tensor object per batch: fast members cache results by it
        for name, member in self.named_members():
            yield name, self.activated(name, member(images).float(), images)

    def activated(self, name: str, logits: Tensor, images: Tensor) -> Tensor:
        """Activate a member's logits: maps ``(B, K, h, w)`` at the size of the combined map.

        Args:
            name: name of the member.
            logits: logits of the member, of any size.
            images: input ``(B, C, H, W)`` of the member.

        Raises:
            UnusableMaps: the logits of some images are not finite or have a wrong shape.
        """
        require_usable(name, logits, images.shape[0], self.task.out_channels)  # len() would fix the batch in exports
        maps = self.task.activation(logits / self.temperatures[name])
        return resize_maps(maps, self.map_size(images), self.task.target_kind == "density")

    def map_size(self, images: Tensor) -> Size:
        """Return (h, w) of the combined map of images ``(B, C, H, W)``."""
        return self.out_size or size_of(images)

    def coarse_logits(self, name: str, images: Tensor) -> Tensor:
        """Return a member's logits ``(B, K, h, w)`` at the size of its head's output, divided by its temperature.

        Args:
            name: name of the member.
            images: ``(B, C, H, W)`` in [0, 1].

        Raises:
            UnusableMaps: the logits of some images are not finite or have a wrong shape.
        """
        member = self.members[name]
        assert isinstance(member, DenseModel | ViewedMember)
        logits = member.coarse(images).float()
        require_usable(name, logits, len(images), self.task.out_channels)
        return logits / self.temperatures[name]

    def forward(self, images: Tensor) -> Tensor:
        """Compute combined activated maps ``(B, K, h, w)`` of images ``(B, 3, H, W)`` RGB in [0, 1].

        Raises:
            UsageError: the images have another shape, or values far outside [0, 1].
            ArtifactError: a member has no usable map, and too few members remain or the rule needs all of them.
        """
        if torch.compiler.is_compiling():
            # The usable images depend on values, which a compiler does not see.
            return self.combination.combine(self.member_maps(images))
        require_tensor(images)
        parts = per_image(self, images, lambda able, part: able.combination.combine(able.member_maps(part)), _warn)
        return in_order(parts, torch.cat)

    @torch.no_grad()
    def predict(self, images: Any) -> Prediction:
        """Predict images in memory: combined map with uncertainty. Runs in eval mode, whatever mode is set.

        Args:
            images: tensor ``(B, C, H, W)`` or ``(C, H, W)``; array ``(B, H, W, C)`` or ``(H, W, C)``; a PIL image; or
                a list of these, all of one size. Values are uint8, or float in [0, 1]. C is 3 (RGB), unless the
                members were built for another number of channels.

        Raises:
            UsageError: wrong shape or type, or float values outside [0, 1].
            ArtifactError: a member has no usable map, and too few members remain or the rule needs all of them.
        """
        batch = as_images(images, self.in_channels).to(next(self.parameters()).device)
        with eval_mode(self):
            parts = per_image(self, batch, lambda able, part: able.combination.predict(able.member_maps(part)), _warn)
        return in_order(parts, Prediction.cat)

    @torch.no_grad()
    def predict_members(self, batch: Tensor, uncertainty: Asked = True) -> Prediction:
        """Predict a float batch ``(B, 3, H, W)`` on the ensemble's device, prepared for output at H x W.

        The mean and the maps derived from it have the ensemble's output size; maps computed over the members have size
        H x W, see :meth:`Combination.predict`. Members that an image was predicted without are in
        :attr:`Prediction.left_out`.

        Raises:
            ArtifactError: a member has no usable map, and too few members remain or the rule needs all of them.
        """
        size = size_of(batch)
        with eval_mode(self):
            parts = per_image(
                self, batch, lambda able, part: able.combination.predict(able.member_maps(part), uncertainty, size)
            )
        return in_order(parts, Prediction.cat)


def _warn(error: UnusableMaps) -> None:
    warnings.warn(f"{error}: left out of this prediction", stacklevel=4)
