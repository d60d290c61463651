"""Doing without a member: when its map cannot be used, and what the rule then keeps of what it learnt."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from densemble.ensemble.combine import COMBINE
from densemble.errors import ArtifactError


def unusable(logits: Tensor, images: int, channels: int) -> str | None:
    """Why a member's logits cannot be used; ``None`` where they can."""
    if logits.ndim != 4 or tuple(logits.shape[:2]) != (images, channels):
        return f"gives a map of shape {tuple(logits.shape)} instead of ({images}, {channels}, h, w)"
    if torch.compiler.is_compiling():
        return None
    # A finite sum proves that all values are finite, in a thirtieth of the time.
    if not bool(logits.sum().isfinite()) and not bool(torch.isfinite(logits).all()):
        return "gives NaN or infinity"
    return None


def keep_members(combine: str, fitted: Mapping[str, Tensor], places: Sequence[int]) -> dict[str, Tensor]:
    """What a rule learnt, of the members at these places only; they come first in every tensor.

    Raises:
        ArtifactError: the rule cannot do without any of its members.
    """
    if COMBINE[combine].needs_all:
        raise ArtifactError(
            f"the rule '{combine}' was fitted for all members and cannot do without one; assemble again without it, or "
            "with --combine mean"
        )
    return {name: tensor[list(places)] for name, tensor in fitted.items()}
