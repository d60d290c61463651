"""Base class of tasks: channels, activation, loss, metrics, and traits of the targets."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor

from densemble.errors import UsageError, unknown_name
from densemble.metrics import Metric, Objective
from densemble.metrics.metric import is_valid
from densemble.shapes import Size
from densemble.tasks.losses.masked import masked_mean
from densemble.tasks.losses.mixture import LossTerms, loss_names, parse_loss
from densemble.tasks.losses.user_loss import user_loss
from densemble.user_code import is_user_function

Distribution = Literal["bernoulli", "categorical", "none"]
"""Meaning of an activated value: a probability per channel, a probability over the channels, or no probability."""

TargetKind = Literal["labels", "masks", "heat", "density", "values", "pixels"]
"""Form of targets.

labels   integer ``(h, w)``
masks    integer ``(K, h, w)``: 0 or 1, 255 is ignored
heat     float ``(h, w)`` or ``(K, h, w)`` in [0, 1]
density  float ``(h, w)`` or ``(K, h, w)`` >= 0 whose sum is a count
values   float ``(h, w)``, NaN is invalid
pixels   float ``(K, h, w)`` in [0, 1], NaN is invalid
"""

_NAN = float("nan")
_FILL: dict[TargetKind, float] = {
    "labels": 255.0, "masks": 255.0, "heat": 0.0, "density": 0.0, "values": _NAN, "pixels": _NAN,
}  # fmt: skip
_OMITTED: dict[str, Any] = {"loss_name": "", "class_weights": None, "unit": "", "whole": True}
"""Fields that a description omits if they have this value."""


class Task(ABC):
    """Meaning of a map. A subclass is a frozen dataclass and a row of ``TASKS`` under its name.

    A subclass sets ``name``, ``target_kind``, ``primary``, ``losses`` and implements the three abstract methods; the
    other traits have defaults. Files store its dataclass fields. A field that is a row of
    ``densemble.data.facts.FACTS`` gets its value from the training data.

    Attributes:
        name: row of ``TASKS``.
        meaning: what a map says about its image, in a few words; empty: unknown.
        target_kind: form of the targets.
        distribution: meaning of an activated value.
        primary: metric used for selection.
        higher_is_better: whether a higher value of the primary metric is better.
        losses: names of the losses of the task.
        loss_name: selected losses, joined by ``+`` and weighted as in ``0.5*dice``; empty: ``default_loss``. Losses of
            the user are named ``package.module:NAME``; files do not store them, because only training needs them.
        thorough_loss: ``loss_name`` in presets with long training; empty: ``default_loss`` there too.
        classes: names of the channels; empty: one channel without a name.
        planes: whether targets have a K axis, for K = 1 too.
        blank_is_valid: whether a target that is 0 everywhere is valid; else it is reported as an error of the data.
        keeps_frame: whether targets depend on the borders of the image, so that strong augmentation makes them wrong.
        in_metres: whether values are distances in metres, so that large values probably are millimetres.
        default_invalid_below: ``invalid_below`` if the settings do not set it.
        invalid_below: target values up to this one are invalid; ``None``: only NaN is.
        file_scale: factor from the numbers in target files to values; saved predictions are divided by it.
        whole: whether values are saved as 16-bit integers.
        pipeline_tag: task of the Hugging Face Hub that is closest to this task.
    """

    name: str
    meaning: str = ""
    target_kind: TargetKind
    distribution: Distribution = "none"
    primary: str
    higher_is_better: bool = True
    losses: tuple[str, ...]
    loss_name: str = ""
    thorough_loss: ClassVar[str] = ""
    classes: tuple[str, ...] = ()
    planes: bool = False
    blank_is_valid: ClassVar[bool] = True
    keeps_frame: ClassVar[bool] = False
    in_metres: ClassVar[bool] = False
    default_invalid_below: ClassVar[float | None] = None
    invalid_below: float | None = None
    file_scale: float = 1.0
    whole: bool = False
    pipeline_tag: str = "image-to-image"

    def __post_init__(self) -> None:
        """Check that the task has all losses in ``loss_name``."""
        _ = self.loss_terms

    @classmethod
    def choices(cls) -> tuple[str, ...]:
        """Return the names of the dataclass fields."""
        return tuple(field.name for field in fields(cls))  # type: ignore[arg-type]

    @classmethod
    def target_kind_for(cls, heatmap: str) -> TargetKind:
        """Return the target kind for the data option ``heatmap``, which only heatmaps use."""
        return cls.target_kind

    @classmethod
    def default_out_size(cls, input_size: Size) -> Size | None:
        """Return the default (h, w) of the maps; ``None``: the size of the input."""
        return None

    @property
    def out_channels(self) -> int:
        """Number of channels K."""
        return max(len(self.classes), 1)

    @property
    def fill(self) -> float:
        """Value of unknown pixels in a target, for example where augmentation moves the border into the image."""
        return _FILL[self.target_kind]

    @property
    def default_loss(self) -> str:
        """Loss for an empty ``loss_name``: the first of ``losses`` unless a task overrides it."""
        return self.losses[0]

    @property
    def has_temperature(self) -> bool:
        """Whether maps are probabilities of observed events, so that a temperature of the logits can be fitted."""
        return self.target_kind in ("labels", "masks")

    @property
    def uncertainty(self) -> Literal["entropy", "variance"]:
        """Map of a prediction that its uncertainty is drawn from.

        ``entropy`` for probabilities of observed events. Values have none, and the entropy of heat is a function of the
        map itself; for both the uncertainty is the ``variance`` over the members, drawn as its square root.
        """
        return "entropy" if self.has_temperature and self.distribution != "none" else "variance"

    @property
    def loss_terms(self) -> LossTerms:
        """Weight and name of each loss in the sum.

        Raises:
            UsageError: ``loss_name`` names a loss that the task does not have.
        """
        return parse_loss(self.loss_name or self.default_loss, self.losses, self.name)

    @property
    def has_user_loss(self) -> bool:
        """Whether one of the selected losses is a function of the user."""
        return any(is_user_function(name) for _, name in self.loss_terms)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the scalar fp32 loss of logits ``(B, K, h, w)`` of any float type and a batch of targets.

        It is exactly 0, with zero gradients, if no pixel is valid.
        """
        # Autocast would run convolutions in half precision even for fp32 inputs.
        with torch.autocast(logits.device.type, enabled=False):
            logits = logits.float()
            terms = [weight * self._any_loss_term(name, logits, target) for weight, name in self.loss_terms]
            return torch.stack(terms).sum()

    def _any_loss_term(self, name: str, logits: Tensor, target: Tensor) -> Tensor:
        """Compute one of ``losses``, or a loss of the user, of logits or of values."""
        if not is_user_function(name):
            return self.loss_term(name, logits, target)
        maps = logits if self.distribution != "none" else self.activation(logits)
        return user_loss(name, maps, self.target_for_user(target))

    def target_for_user(self, target: Tensor) -> Tensor:
        """Return a batch of targets as losses of the user get it: unknown values are NaN; labels and masks have 255."""
        if self.distribution != "none":
            return target
        return torch.where(self.is_valid(target), target.float(), _NAN)

    @abstractmethod
    def loss_term(self, name: str, logits: Tensor, target: Tensor) -> Tensor:
        """Compute one of ``losses``: scalar, for fp32 logits ``(B, K, h, w)`` and a batch of targets."""

    def soft_loss(self, logits: Tensor, maps: Tensor, weight: Tensor) -> Tensor:
        """Compute the scalar fp32 loss of logits against activated maps, such as the predictions of an ensemble.

        It is lowest where the activated logits equal the maps.

        Args:
            logits: ``(B, K, h, w)`` of any float type.
            maps: activated maps of the same shape.
            weight: weight of each pixel, ``(B, h, w)`` >= 0; pixels of weight 0 do not count.

        Raises:
            UsageError: a loss of the user is selected, which is defined for targets only.
        """
        if self.has_user_loss:
            raise UsageError(
                f"loss '{self.loss_name}' is defined for targets and not for the maps of an ensemble; leave loss out"
            )
        with torch.autocast(logits.device.type, enabled=False):
            logits = logits.float()
            terms = [share * self.soft_term(name, logits, maps, weight) for share, name in self.loss_terms]
            return torch.stack(terms).sum()

    def soft_term(self, name: str, logits: Tensor, maps: Tensor, weight: Tensor) -> Tensor:
        """Compute one of ``losses`` against activated maps, scalar.

        Here, a map is used as the target of its image, and an image has the mean weight of its pixels, because losses
        of whole maps have no weights of pixels. Tasks whose targets have another form than their maps override this.
        """
        targets = maps if self.planes else maps[:, 0]
        pairs = zip(logits, targets, strict=True)
        losses = torch.stack([self.loss_term(name, image[None], target[None]) for image, target in pairs])
        return masked_mean(losses, weight.mean((1, 2)))

    @abstractmethod
    def activation(self, logits: Tensor) -> Tensor:
        """Convert logits ``(B, K, h, w)`` to probabilities or values of the same shape."""

    @abstractmethod
    def metrics(self) -> Metric:
        """Create an empty accumulator of the task's metrics."""

    def is_valid(self, target: Tensor) -> Tensor:
        """Return where a float target of any shape is known, bool of that shape."""
        return is_valid(target, self.invalid_below)

    def as_maps(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the activated map that equals one target, and where it is valid.

        Returns:
            float32 ``(K, h, w)``, 0 where invalid; valid pixels, bool ``(1, h, w)`` or ``(K, h, w)``.
        """
        target = target if self.planes else target[None]
        valid = self.is_valid(target)
        return torch.where(valid, target.float(), 0.0), valid

    def objective(self, name: str | None = None) -> Objective:
        """Return one of the task's metrics, for selection; default ``primary``.

        Raises:
            UsageError: the task has no such metric; the message lists its metrics.
        """
        objectives, requested = self.metrics().objectives, name or self.primary
        if requested not in objectives:
            raise UsageError(unknown_name(f"metric of {self.name}", requested, objectives))
        return objectives[requested]

    def describe(self) -> dict[str, Any]:
        """Return plain values; :func:`make_task` builds the same task from them, but without losses of the user."""
        values = {name: getattr(self, name) for name in self.choices()}
        values |= {"loss_name": ""} if self.has_user_loss else {}
        kept = {name: value for name, value in values.items() if name not in _OMITTED or value != _OMITTED[name]}
        return {"name": self.name} | {k: list(v) if isinstance(v, tuple) else v for k, v in kept.items()}

    @classmethod
    def described(cls, values: Mapping[str, Any]) -> Self:
        """Build a task from the plain values of :meth:`describe`; missing values have their defaults.

        Raises:
            UsageError: the values do not belong to the task, or name a loss of the user, which no file may do.
        """
        known = {name: values[name] for name in cls.choices() if name in values}
        if any(is_user_function(name) for name in loss_names(str(known.get("loss_name", "")))):
            raise UsageError(f"the description of a task must not name a loss of the user: {known['loss_name']}")
        return cls(**{name: tuple(v) if isinstance(v, list) else v for name, v in known.items()})
