"""Check the arguments of a network: sizes, numbers of channels, limits, normalization."""

import math
import re
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim.swa_utils import AveragedModel

from densemble.errors import UsageError
from densemble.nets.automatic_cut import Limits
from densemble.shapes import Size, parse_size


def size_argument(name: str, value: Any) -> Size | None:
    """(height, width) from a pair of positive integers or text like ``48x64``; ``None`` stays ``None``.

    Raises:
        UsageError: the value is anything else.
    """
    if isinstance(value, str):
        return parse_size(value)
    if value is None:
        return None
    pair = tuple(value) if isinstance(value, Sequence) else ()
    if len(pair) != 2 or not all(isinstance(side, int) and side >= 1 for side in pair):
        raise UsageError(f"{name}={value!r} is not a height and a width in pixels; write (48, 64) or '48x64'")
    return pair[0], pair[1]


def count_argument(name: str, value: Any) -> int:
    """A positive integer.

    Raises:
        UsageError: the value is anything else.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(f"{name}={value!r} is not a number of channels; give a whole number from 1 up")
    return value


def limit_argument(name: str, value: Any) -> float | None:
    """A positive number; ``None`` stays ``None``.

    Raises:
        UsageError: the value is anything else.
    """
    if value is None:
        return None
    if not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise UsageError(f"{name}={value!r} is not a limit; give a positive number, or leave it out")
    return float(value)


def limit_arguments(min_size: Any, max_stride: Any, max_macs: Any) -> Limits:
    """Limits of an automatic cut.

    Raises:
        UsageError: a value is not a size or a positive number.
    """
    return Limits(
        size_argument("min_size", min_size),
        limit_argument("max_stride", max_stride),
        limit_argument("max_macs", max_macs),
    )


def channel_values(name: str, value: Any, channels: int, default: tuple[float, ...]) -> tuple[float, ...]:
    """One finite number per channel; ``None`` gives the default. A standard deviation must be positive.

    Raises:
        UsageError: the number of values is wrong, or a value is not allowed.
    """
    if value is None:
        return default
    values = tuple(float(v) for v in value) if isinstance(value, Sequence) and not isinstance(value, str) else ()
    if len(values) != channels:
        raise UsageError(f"{name}={value!r} must have one number for each of the {channels} channels")
    if not all(math.isfinite(v) and (name != "std" or v > 0) for v in values):
        raise UsageError(f"{name}={value!r} must be finite" + (" and positive" if name == "std" else ""))
    return values


def require_network(backbone: Any) -> None:
    """Check that a backbone is a name or a network, not a class or function that makes a network.

    Raises:
        UsageError: it is anything else.
    """
    if isinstance(backbone, str | nn.Module):
        return
    if callable(backbone):
        module, name = getattr(backbone, "__module__", "package.module"), getattr(backbone, "__qualname__", "function")
        raise UsageError(
            f"backbone {name} is a class or function, not a network; pass the network that it returns, "
            f"or its name: '{module}:{name}'"
        )
    raise UsageError(f"backbone must be a name or a torch.nn.Module, got a {type(backbone).__name__}")


def require_channels(name: str, network_channels: int, in_channels: int) -> None:
    """Check that a network takes images of ``in_channels``, or RGB images, in which case it can be adapted.

    Raises:
        UsageError: the network takes another number of channels.
    """
    if network_channels not in (3, in_channels):
        raise UsageError(
            f"{name} takes images of {network_channels} channels, not of {in_channels}; "
            f"set in_channels={network_channels} and pass images of {network_channels} channels"
        )


def unwrapped(network: Any) -> Any:
    """Remove the wrappers of ``torch.compile``, data parallelism and averaged weights from a network."""
    while isinstance(network, nn.Module):
        parts = network._modules if isinstance(network._modules, dict) else {}  # a scripted module has no dict
        inner = parts.get("_orig_mod")  # the module inside a module compiled by torch.compile
        if isinstance(network, nn.DataParallel | nn.parallel.DistributedDataParallel | AveragedModel):
            inner = network.module
        if inner is None:
            break
        network = inner
    return network


def weights_name(weights: str | Path | Enum | None) -> str | Path | None:
    """Name of the entry for torchvision's ``VGG16_Weights.IMAGENET1K_V1`` (enum or text); other weights unchanged."""
    if isinstance(weights, Enum):
        return weights.name
    if isinstance(weights, str) and (match := re.fullmatch(r"\w+_Weights\.(\w+)", weights)):
        return match[1]
    return weights
