"""FLOPs of a network, and the operators that the count does not include.

``FlopCounterMode`` counts an unknown operator as 0 FLOPs. This module checks every operator that ran and reports the
unknown ones, so that an incomplete count is visible.
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

# Operators with few operations per value or none: memory access dominates their cost.
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
    """.split()  # noqa: SIM905 (a list would take a hundred lines)
)


@dataclass(frozen=True)
class Work:
    """Work of one forward pass of a network.

    Attributes:
        flops: operations of convolutions, matrix products and attention; a multiply-add counts as two.
        values: number of values that these operators read and write, including weights. If all other operators are
            fused with them, this is the total memory traffic.
        light: number of calls of each operator that is not counted and does few operations per value.
        unknown: number of calls of each operator that is not counted and may be expensive; if there are any, ``flops``
            is too low.
    """

    flops: int
    values: int
    light: dict[str, int]
    unknown: dict[str, int]


def count_work(network: nn.Module, images: Tensor) -> Work:
    """Count the work of one forward pass on images ``(B, C, H, W)``; the network must be in eval mode."""
    with _separate_attention(), _Watch() as watch, counting(network) as counter:
        network(images)
    return Work(int(counter.get_total_flops()), watch.values, watch.light, watch.unknown)


@contextlib.contextmanager
def _separate_attention() -> Iterator[None]:
    """Split attention into matrix products, because on a CPU the counter counts fused attention as 0 FLOPs."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Record the operators that run in this context.

    Enter it before ``FlopCounterMode``: then it sees the operators into which the counter decomposes others.
    """

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
            calls = self.light if name in _LIGHT else self.unknown
            calls[name] = calls.get(name, 0) + 1
        return result
