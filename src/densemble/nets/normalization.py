"""Normalization of images: what pretrained weights expect, and where that is known from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from densemble.nets.channels import cycled

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Normalization:
    """Per-channel mean and standard deviation for RGB in [0, 1], as the backbone was pretrained with.

    Attributes:
        mean, std: one number per channel.
        assumed: where it was taken from, in words, if nothing says that it is that of the weights; else empty.
    """

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    assumed: str = ""

    @classmethod
    def from_config(cls, config: Any) -> "Normalization | None":
        """That of a description of weights that has ``mean`` and ``std``, as attributes or as keys."""
        values = config if isinstance(config, dict) else {key: getattr(config, key, None) for key in ("mean", "std")}
        mean, std = values.get("mean"), values.get("std")
        if not isinstance(mean, Sequence) or not isinstance(std, Sequence) or not mean or not std:
            return None
        return cls(tuple(float(value) for value in mean), tuple(float(value) for value in std))

    def for_channels(self, in_channels: int) -> "Normalization":
        """The same for so many channels."""
        if len(self.mean) == in_channels:
            return self
        return replace(self, mean=cycled(self.mean, in_channels), std=cycled(self.std, in_channels))

    @property
    def notice(self) -> str:
        """What is said where it is only assumed."""
        if not self.assumed:
            return ""
        mean, std = (", ".join(f"{value:.3g}" for value in values) for values in (self.mean, self.std))
        return (
            f"images are normalized with mean ({mean}) and std ({std}), {self.assumed}: "
            "if the weights expect others, give mean and std to DenseModel"
        )
