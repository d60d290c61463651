"""The ensemble: members, weights, a rule and calibration as one ``nn.Module``."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from densemble.ensemble.calibrate import Calibration
from densemble.ensemble.cascade import Cascade
from densemble.ensemble.combination import Combination
from densemble.ensemble.combine import COMBINE
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
from densemble.ensemble.guarantee import Guarantee
from densemble.ensemble.input_images import as_images, require_tensor
from densemble.ensemble.member_views import Viewed
from densemble.ensemble.membership import UnusableMaps, per_image, require_usable
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
from densemble.ensemble.uncertainty import Asked
from densemble.errors import UsageError
from densemble.nets.dense import DenseModel
from densemble.nets.modes import eval_mode
from densemble.shapes import Size, size_of
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
        guarantee: what the sets or intervals of a prediction guarantee; void once a member is left out.
        reading: how images were read in training (``bands``, ``image_range``), kept for those that come later.
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
        shares = kept_weights(weights, named)
        kept = {name: named[name] for name in shares}
        channels = {name: member.spec.out_channels for name, member in kept.items()}
        if len(set(channels.values())) > 1:
            raise UsageError(f"members give different numbers of channels: {channels}")
        taken = {name: member.spec.in_channels for name, member in kept.items()}
        if len(set(taken.values())) > 1:
            raise UsageError(f"members take images of different numbers of channels: {taken}")
        heat = positive_temperatures(temperatures, named)
        require_least(min_members, len(kept))
        self.members = nn.ModuleDict(kept)
        task = task_of(task, next(iter(channels.values())))
        self.combination = Combination(task, shares, combine, tensors_of(fitted), calibration, guarantee)
        self.metrics = dict(metrics or {})
        self.temperatures = {name: heat[name] for name in kept}
        self.in_channels = next(iter(taken.values()))
        self.out_size = next(member.spec.out_size for member in kept.values())
        self.reading = dict(reading or {})
        self.min_members = min_members
        self.cascade = cascade
        self.left_out: dict[str, str] = {}
        """Members that it had to be made without, and why, such as those that are damaged in a file."""

    @property
    def task(self) -> Task:
        """What the maps mean."""
        return self.combination.task

    @property
    def weights(self) -> dict[str, float]:
        """Positive weights by the members' names, summing to 1."""
        return self.combination.weights

    @property
    def combine(self) -> str:
        """Name of the combination rule."""
        return self.combination.rule

    @property
    def fitted(self) -> dict[str, Tensor]:
        """What the rule learned from held-out data."""
        return self.combination.fitted

    @property
    def calibration(self) -> Calibration | None:
        """Calibration of the combined map, or of the variance of values."""
        return self.combination.calibration

    @property
    def guarantee(self) -> Guarantee | None:
        """What the sets or intervals of a prediction guarantee; ``None`` once a member is missing."""
        return self.combination.guarantee

    @property
    def unusable(self) -> Mapping[str, str]:
        """Members that :meth:`without` took away, and why."""
        return self.combination.unusable

    def named_members(self) -> Iterator[tuple[str, Member]]:
        """Names and members, in order."""
        for name, member in self.members.items():
            assert isinstance(member, DenseModel | Viewed)
            yield name, member

    def with_members(self, members: Mapping[str, Member]) -> "Ensemble":
        """The same weights, rule and calibration over other networks of the same names, or of some of them.

        Raises:
            ArtifactError: a member is missing and the rule was fitted for all.
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
        """Notes members that the ensemble had to be made without, and why; if there are any, the guarantee is void."""
        self.left_out |= members
        if self.left_out:
            self.combination = replace(self.combination, guarantee=None)

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
        reduced = self.with_members(others)
        unusable = {**self.unusable, error.member: error.reason}
        reduced.combination = replace(reduced.combination, unusable=unusable)
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
        loaded.leave_out(values["left_out"])
        for name in (
            "members", "combination", "temperatures", "cascade", "reading", "metrics", "min_members", "left_out",
            "out_size",
        ):  # fmt: skip
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

    def member_maps(self, images: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Each member's name and activated maps ``(B, K, h, w)``, one after the other, all of one size.

        Raises:
            UnusableMaps: a member's map of some of the images is not finite or of a wrong shape.
        """
        images = images.view_as(images)  # what fast members keep of a batch ends with it
        for name, member in self.named_members():
            yield name, self.activated(name, member(images).float(), images)

    def activated(self, name: str, logits: Tensor, images: Tensor) -> Tensor:
        """Activated maps ``(B, K, h, w)`` of a member, of the size of the combined map.

        Args:
            name: of the member.
            logits: that it gave, of any size.
            images: ``(B, C, H, W)`` that it saw.

        Raises:
            UnusableMaps: the logits of some images are not finite or of a wrong shape.
        """
        require_usable(name, logits, images.shape[0], self.task.out_channels)  # len() would fix the batch in exports
        maps = self.task.activation(logits / self.temperatures[name])
        return resize_maps(maps, self.map_size(images), self.task.target_kind == "density")

    def map_size(self, images: Tensor) -> Size:
        """(h, w) of the combined map of images ``(B, C, H, W)``."""
        return self.out_size or size_of(images)

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

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(B, 3, H, W)`` RGB in [0, 1] -> combined activated maps ``(B, K, h, w)``.

        Raises:
            UsageError: the images have another shape.
            ArtifactError: a member that yields no usable map, and cannot be done without.
        """
        if torch.compiler.is_compiling():
            # Which images can be used depends on their values.
            return self.combination.combine(self.member_maps(images))
        require_tensor(images)
        parts = per_image(self, images, lambda able, part: able.combination.combine(able.member_maps(part)), _warn)
        return in_order(parts, torch.cat)

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
            parts = per_image(self, batch, lambda able, part: able.combination.predict(able.member_maps(part)), _warn)
        return in_order(parts, Prediction.cat)

    @torch.no_grad()
    def predict_members(self, batch: Tensor, uncertainty: Asked = True) -> Prediction:
        """The prediction for a float batch ``(B, 3, H, W)`` on the ensemble's device, ready to be served at H x W.

        The mean and what follows from it have the ensemble's size; what is computed over the members has H x W, see
        :meth:`Combination.predict`. Members that an image was predicted without are in :attr:`Prediction.left_out`.

        Raises:
            ArtifactError: a member that yields no usable map, and cannot be done without.
        """
        size = size_of(batch)
        with eval_mode(self):
            parts = per_image(
                self, batch, lambda able, part: able.combination.predict(able.member_maps(part), uncertainty, size)
            )
        return in_order(parts, Prediction.cat)


def _warn(error: UnusableMaps) -> None:
    warnings.warn(f"{error}: left out of this prediction", stacklevel=4)
