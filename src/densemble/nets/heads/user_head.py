"""Heads of the user: any ``nn.Module`` that maps feature maps to logits of any size."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from densemble.errors import UsageError
from densemble.nets.heads.head import DenseHead, Head
from densemble.shapes import Size
from densemble.user_code import shape_or_type

MakeModule = Callable[..., nn.Module]
"""A class or function: (channels of the feature maps, deepest first; out_channels) -> module."""


class UserHead(DenseHead):
    """A module of the user as a head; its logits are resized to the size of the output.

    Args:
        module: called with a list of feature maps ``[(B, C, H, W), ...]``, deepest first; returns logits
            ``(B, K, h, w)`` of any size.
        out_channels: K.
        name: name of the head, used in messages.
    """

    def __init__(self, module: nn.Module, out_channels: int, name: str) -> None:
        super().__init__()
        self.module = module
        self.out_channels = out_channels
        self.name = name

    def grid(self, maps: Sequence[Tensor], size: Size | None) -> Tensor:
        """``[(B, C, H, W), ...]`` deepest first -> logits ``(B, K, h, w)`` of the module.

        Raises:
            UsageError: the module returns anything else.
        """
        logits: Tensor = self.module(list(maps))
        if not isinstance(logits, Tensor) or logits.ndim != 4 or logits.shape[1] != self.out_channels:
            raise UsageError(
                f"head '{self.name}' must return logits (B, {self.out_channels}, h, w), got "
                f"{shape_or_type(logits)}; its second argument is the number of channels"
            )
        return logits


def user_row(part: Any, name: str) -> Head:
    """Return the row of a head of the user.

    Args:
        part: a :class:`Head`; a subclass of :class:`DenseHead`; or a class or function of ``(channels, out_channels)``
            that returns a module, see :class:`UserHead`. The attribute ``multi_level = True`` of a class requests all
            feature maps.
        name: name of the head, used in messages.

    Raises:
        UsageError: ``part`` is none of them.
    """
    if isinstance(part, Head):
        return part
    if not callable(part) or isinstance(part, nn.Module):
        raise UsageError(
            f"head '{name}' is a {type(part).__name__}; give a class or function of (channels, out_channels) that "
            "returns a torch.nn.Module, or a densemble.Head"
        )
    multi_level = bool(getattr(part, "multi_level", False))
    if isinstance(part, type) and issubclass(part, DenseHead):
        return Head(part, multi_level, tuned=False)

    def make(channels: Sequence[int], out_channels: int, doublings: int) -> DenseHead:
        try:
            module = part(tuple(channels), out_channels)
        except Exception as error:  # code of the user may raise anything
            raise UsageError(
                f"head '{name}': calling it with channels={tuple(channels)}, out_channels={out_channels} failed with "
                f"{type(error).__name__}: {error}"
            ) from error
        if not isinstance(module, nn.Module):
            raise UsageError(f"head '{name}' returned a {type(module).__name__}, not a torch.nn.Module")
        if bool(getattr(module, "multi_level", multi_level)) != multi_level:
            raise UsageError(
                f"head '{name}' returned a module with multi_level={module.multi_level}, which is read before the "
                f"module exists; set it on what you pass: NAME.multi_level = {module.multi_level}"
            )
        return UserHead(module, out_channels, name)

    return Head(make, multi_level, tuned=False)
