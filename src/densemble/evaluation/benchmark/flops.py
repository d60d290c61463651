"""The work of a network, and which of its operators the count leaves out.

``FlopCounterMode`` counts an operator that it does not know as nothing. Here every operator that ran is looked at: an
unknown one is named, so that a count is never taken for whole that is not.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from densemble.nets.counting import counting

# A few operations per value, or none: what they cost is the access to memory.
_LIGHT = frozenset(
    """
    adaptive_avg_pool2d _adaptive_avg_pool2d avg_pool2d max_pool2d_with_indices adaptive_max_pool2d mean sum var
    var_mean std amax amin max min argmax argmin any all cumsum native_batch_norm
    _native_batch_norm_legit_no_training _native_batch_norm_legit cudnn_batch_norm native_layer_norm
    native_group_norm linalg_vector_norm upsample_linear1d upsample_bilinear2d _upsample_bilinear2d_aa
    upsample_bicubic2d _upsample_bicubic2d_aa upsample_nearest2d _upsample_nearest_exact2d grid_sampler_2d _softmax
    _safe_softmax _log_softmax hardswish hardswish_ glu prelu cat stack copy_ _to_copy clone contiguous
    constant_pad_nd reflection_pad2d replication_pad2d roll flip index _unsafe_index index_select gather im2col
    col2im pixel_shuffle pixel_unshuffle channel_shuffle _unsafe_view repeat _reshape_copy tril triu masked_fill
    masked_fill_ embedding empty empty_like empty_strided new_empty zeros zeros_like new_zeros ones ones_like full
    full_like scalar_tensor arange eye linspace fill_ zero_ _local_scalar_dense sym_size sym_numel sym_stride
    as_strided_
    """.split()  # noqa: SIM905 (a list of them would be a hundred lines)
)


@dataclass(frozen=True)
class Work:
    """What one call of a network takes.

    Attributes:
        flops: operations of convolutions, matrix products and attention; a multiply-add is two.
        values: numbers that these operators read and write, weights included: what has to move even where all that
            lies between them is fused.
        light: operators that are not counted and do a few operations per value, how often each ran.
        unknown: operators that are not counted and may compute much: with any, ``flops`` is too low.
    """

    flops: int
    values: int
    light: dict[str, int]
    unknown: dict[str, int]


def count_work(network: nn.Module, images: Tensor) -> Work:
    """The work of a network in eval mode for images that it takes ``(B, C, H, W)``."""
    with _separate_attention(), _Watch() as watch, counting(network) as counter:
        network(images)
    return Work(int(counter.get_total_flops()), watch.values, watch.light, watch.unknown)


@contextlib.contextmanager
def _separate_attention() -> Iterator[None]:
    """Attention as its products one by one: operators that do all of it at once count as nothing on a CPU."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sorts the operators that run inside; entered before the counter, it sees what that has taken apart."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.values = 0
        self.light: dict[str, int] = {}
        self.unknown: dict[str, int] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if function._overloadpacket in flop_registry:
            self.values += sum(leaf.numel() for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor))
        elif not function.is_view and torch.Tag.pointwise not in function.tags:
            name = str(function._overloadpacket).removeprefix("aten.")
            sort = self.light if name in _LIGHT else self.unknown
            sort[name] = sort.get(name, 0) + 1
        return result
