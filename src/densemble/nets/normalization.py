"""The normalization that pretrained weights expect."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from densemble.nets.channels import cycled

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Normalization:
    """Per-channel mean and standard deviation of images in [0, 1].

    Attributes:
        mean, std: one number per channel.
        assumed: origin of the values in words if it is not certain that the weights expect them; else empty.
    """

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    assumed: str = ""

    @classmethod
    def from_config(cls, config: Any) -> "Normalization | None":
        """Read ``mean`` and ``std`` from a configuration of weights, as attributes or keys; ``None`` without them."""
        values = config if isinstance(config, dict) else {key: getattr(config, key, None) for key in ("mean", "std")}
        mean, std = values.get("mean"), values.get("std")
        if not isinstance(mean, Sequence) or not isinstance(std, Sequence) or not mean or not std:
            return None
        return cls(tuple(float(value) for value in mean), tuple(float(value) for value in std))

    def for_channels(self, in_channels: int) -> "Normalization":
        """The normalization for images of ``in_channels``, see :func:`cycled`."""
        if len(self.mean) == in_channels:
            return self
        return replace(self, mean=cycled(self.mean, in_channels), std=cycled(self.std, in_channels))

    def announced(self, published: bool) -> str:
        """Return :attr:`notice`; for a published network, also warn at the call of the constructor that calls this."""
        if self.notice and published:
            warnings.warn(self.notice, stacklevel=3)
        return self.notice

    @property
    def notice(self) -> str:
        """Warning if the values are assumed; else empty."""
        if not self.assumed:
            return ""
        mean, std = (", ".join(f"{value:.3g}" for value in values) for values in (self.mean, self.std))
        return (
            f"images are normalized with mean ({mean}) and std ({std}), {self.assumed}; "
            "if the weights expect other values, give mean and std to DenseModel"
        )
