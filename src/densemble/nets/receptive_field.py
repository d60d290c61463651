"""Receptive fields: the image pixels that a feature pixel depends on, computed node by node along the graph.

Along one axis, feature pixel i depends on the image pixels ``low + i * step`` to ``high + i * step``. Convolution and
pooling widen this interval (Araujo et al., "Computing receptive fields of convolutional neural networks", Distill
2019). Operations on the whole map (global pooling, attention, group normalization) have no bounded receptive field.
"""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densemble.shapes import size_of


@dataclass(frozen=True)
class Interval:
    """Image pixels that feature pixel 0 depends on along one axis, and the shift from one feature pixel to the next."""

    low: int
    high: int
    step: int

    def window(self, kernel: int, stride: int, before: int) -> "Interval":
        """The interval after a window of ``kernel`` pixels (with dilation) that starts ``before`` pixels early."""
        return Interval(
            self.low - before * self.step, self.high + (kernel - 1 - before) * self.step, self.step * stride
        )


Field = tuple[Interval, Interval] | None
"""(vertical, horizontal); ``None`` if the field is unbounded or unknown."""

IMAGE: Field = (Interval(0, 0, 1), Interval(0, 0, 1))

_POINTWISE_MODULES: tuple[type[nn.Module], ...] = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.dropout._DropoutNd,
    nn.Identity,
    nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.ELU, nn.SELU, nn.Sigmoid, nn.Tanh, nn.Mish,
    nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.LeakyReLU, nn.PReLU,
)  # fmt: skip
# Layers of timm that fx does not trace into, by name, because timm is not imported here.
_POINTWISE_NAMES = {"BatchNormAct2d", "FrozenBatchNormAct2d", "FrozenBatchNorm2d", "LayerNorm2d", "DropPath", "Swish"}
_POINTWISE_FUNCTIONS: set[Any] = {
    operator.add, operator.iadd, operator.sub, operator.mul, operator.imul, operator.truediv,
    torch.add, torch.sub, torch.mul, torch.div, torch.cat, torch.concat, torch.relu, torch.sigmoid, torch.tanh,
    torch.chunk, torch.split,
    F.relu, F.relu6, F.silu, F.gelu, F.elu, F.leaky_relu, F.hardswish, F.hardsigmoid, F.sigmoid,
    F.dropout, F.batch_norm,
}  # fmt: skip
_POINTWISE_METHODS = {
    "add", "add_", "sub", "mul", "mul_", "div", "relu", "relu_", "sigmoid", "chunk", "split",
    "contiguous", "clone", "to",
}  # fmt: skip
# These may move axes; pixels keep their positions if height and width stay the last two axes.
_AXES_FUNCTIONS: set[Any] = {operator.getitem, torch.unsqueeze, torch.reshape, torch.flatten, torch.transpose}
_AXES_METHODS = {"view", "reshape", "transpose", "permute", "unsqueeze", "flatten", "unbind"}
_POOLINGS = (F.max_pool2d, F.avg_pool2d, torch.max_pool2d)
_WINDOWS = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)


def through(
    operation: Any, fields: Sequence[Field], inputs: Sequence[Any], options: Mapping[str, Any], output: Any
) -> Field:
    """Receptive field after one operation of a graph.

    Args:
        operation: a module, a function, or the name of a method.
        fields: receptive fields of the input tensors.
        inputs: positional arguments of the operation.
        options: keyword arguments of the operation.
        output: result of the operation.
    """
    if not fields or any(field is None for field in fields):
        return None
    union = _union([field for field in fields if field is not None])
    if union is None:
        return None
    if isinstance(operation, nn.Sequential):
        # torchvision's tracer does not trace into its blocks. Their convolutions do not depend on sizes.
        field: Field = union
        for layer in operation:
            field = through(layer, [field], inputs, {}, output)
        return field
    if isinstance(operation, _WINDOWS):
        return _windowed(operation, union, inputs[0])
    if _keeps_pixels(operation):
        return union
    moves_axes = operation in _AXES_METHODS if isinstance(operation, str) else _is_in(operation, _AXES_FUNCTIONS)
    if moves_axes and _same_plane(inputs[0], output):
        return union
    if operation in _POOLINGS:
        arguments = dict(zip(("kernel_size", "stride", "padding"), inputs[1:4], strict=False)) | dict(options)
        kernel = arguments["kernel_size"]
        stride, padding = arguments.get("stride") or kernel, arguments.get("padding", 0)
        return _apply(union, _pair(kernel), _pair(stride), _pair(padding))
    return None


def _is_in(operation: Any, known: set[Any]) -> bool:
    return isinstance(operation, Callable) and not isinstance(operation, nn.Module) and operation in known  # type: ignore[arg-type]


def _keeps_pixels(operation: Any) -> bool:
    if isinstance(operation, str):
        return operation in _POINTWISE_METHODS
    if isinstance(operation, nn.Module):
        return isinstance(operation, _POINTWISE_MODULES) or type(operation).__name__ in _POINTWISE_NAMES
    return _is_in(operation, _POINTWISE_FUNCTIONS)


def _same_plane(before: Any, after: Any) -> bool:
    if isinstance(before, tuple | list):  # one chunk of a tensor
        return True
    return isinstance(before, Tensor) and isinstance(after, Tensor) and before.shape[-2:] == after.shape[-2:]


def _union(fields: Sequence[tuple[Interval, Interval]]) -> Field:
    axes = []
    for axis in (0, 1):
        intervals = [field[axis] for field in fields]
        if len({i.step for i in intervals}) != 1:
            return None
        axes.append(Interval(min(i.low for i in intervals), max(i.high for i in intervals), intervals[0].step))
    return axes[0], axes[1]


def _pair(value: Any) -> tuple[int, int]:
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[-1]))


def _apply(
    field: tuple[Interval, Interval], kernel: tuple[int, int], stride: tuple[int, int], before: tuple[int, int]
) -> Field:
    vertical, horizontal = (field[axis].window(kernel[axis], stride[axis], before[axis]) for axis in (0, 1))
    return vertical, horizontal


def _windowed(module: nn.Module, field: tuple[Interval, Interval], x: Tensor) -> Field:
    kernel, stride = _pair(module.kernel_size), _pair(module.stride or module.kernel_size)
    dilation = _pair(getattr(module, "dilation", 1))
    span = (dilation[0] * (kernel[0] - 1) + 1, dilation[1] * (kernel[1] - 1) + 1)
    padding = module.padding
    if type(module).__name__.endswith("Same"):
        # TensorFlow pads the map to ceil(size / stride) pixels; an odd pixel goes to the end.
        missing = [(math.ceil(n / s) - 1) * s + k - n for n, s, k in zip(size_of(x), stride, span, strict=True)]
        return _apply(field, span, stride, (max(missing[0], 0) // 2, max(missing[1], 0) // 2))
    if padding == "same":
        return _apply(field, span, stride, ((span[0] - 1) // 2, (span[1] - 1) // 2))
    return _apply(field, span, stride, (0, 0) if padding == "valid" else _pair(padding))
