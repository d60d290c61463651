"""Receptive fields: which pixels of the image a place in a feature map can see, followed through the graph.

Along one axis, feature pixel i sees the image pixels ``low + i * step`` to ``high + i * step``. A convolution or a
pooling widens that interval (Araujo et al., "Computing receptive fields of convolutional neural networks", Distill
2019). What looks at the whole map at once (global pooling, attention, group normalization) has no bound.
"""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Interval:
    """What feature pixel 0 sees along one axis, and how far the next one's view lies: image pixels."""

    low: int
    high: int
    step: int

    def window(self, kernel: int, stride: int, before: int) -> "Interval":
        """Through a window of ``kernel`` pixels (dilation included) that starts ``before`` pixels early."""
        return Interval(
            self.low - before * self.step, self.high + (kernel - 1 - before) * self.step, self.step * stride
        )


Field = tuple[Interval, Interval] | None
"""(vertical, horizontal), or None: not bounded, or not known."""

IMAGE: Field = (Interval(0, 0, 1), Interval(0, 0, 1))

_POINTWISE_MODULES: tuple[type[nn.Module], ...] = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.dropout._DropoutNd,
    nn.Identity,
    nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.ELU, nn.SELU, nn.Sigmoid, nn.Tanh, nn.Mish,
    nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.LeakyReLU, nn.PReLU,
)  # fmt: skip
# timm's own layers that fx takes as one piece, by name: their module is not imported here.
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
# These may move axes about; where height and width stay the last two, every pixel stays where it was.
_AXES_FUNCTIONS: set[Any] = {operator.getitem, torch.unsqueeze, torch.reshape, torch.flatten, torch.transpose}
_AXES_METHODS = {"view", "reshape", "transpose", "permute", "unsqueeze", "flatten", "unbind"}
_POOLINGS = (F.max_pool2d, F.avg_pool2d, torch.max_pool2d)
_WINDOWS = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)


def through(
    operation: Any, fields: Sequence[Field], inputs: Sequence[Any], options: Mapping[str, Any], output: Any
) -> Field:
    """Field after one operation of a graph.

    Args:
        operation: a module, a function, or a method's name.
        fields: fields of the tensors that go in.
        inputs: positional arguments as the operation gets them.
        options: its keyword arguments.
        output: what it returned.
    """
    if not fields or any(field is None for field in fields):
        return None
    joined = _union([field for field in fields if field is not None])
    if joined is None:
        return None
    if isinstance(operation, nn.Sequential):
        # torchvision's tracer takes its own blocks as one piece. Their convolutions do not look at sizes.
        passed: Field = joined
        for layer in operation:
            passed = through(layer, [passed], inputs, {}, output)
        return passed
    if isinstance(operation, _WINDOWS):
        return _windowed(operation, joined, inputs[0])
    if _keeps_pixels(operation):
        return joined
    moves_axes = operation in _AXES_METHODS if isinstance(operation, str) else _is_in(operation, _AXES_FUNCTIONS)
    if moves_axes and _same_plane(inputs[0], output):
        return joined
    if operation in _POOLINGS:
        given = dict(zip(("kernel_size", "stride", "padding"), inputs[1:4], strict=False)) | dict(options)
        kernel = given["kernel_size"]
        return _apply(joined, _pair(kernel), _pair(given.get("stride") or kernel), _pair(given.get("padding", 0)))
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
    if isinstance(before, tuple | list):  # one piece of a chunked tensor
        return True
    return isinstance(before, Tensor) and isinstance(after, Tensor) and before.shape[-2:] == after.shape[-2:]


def _union(fields: Sequence[tuple[Interval, Interval]]) -> Field:
    axes = []
    for axis in (0, 1):
        views = [field[axis] for field in fields]
        if len({view.step for view in views}) != 1:
            return None
        axes.append(Interval(min(v.low for v in views), max(v.high for v in views), views[0].step))
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
    if type(module).__name__.endswith(
        "Same"
    ):  # TensorFlow's rule: as much as makes ceil(size / stride), the odd one last
        sizes = x.shape[-2:]
        missing = [(math.ceil(n / s) - 1) * s + k - n for n, s, k in zip(sizes, stride, span, strict=True)]
        return _apply(field, span, stride, (max(missing[0], 0) // 2, max(missing[1], 0) // 2))
    if padding == "same":
        return _apply(field, span, stride, ((span[0] - 1) // 2, (span[1] - 1) // 2))
    return _apply(field, span, stride, (0, 0) if padding == "valid" else _pair(padding))
