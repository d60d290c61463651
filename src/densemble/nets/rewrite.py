"""Fold batch normalization into the convolution before it, for faster inference with the same result.

The original model is not changed. Both models give the same map up to rounding.
"""

import copy
from itertools import chain, pairwise

from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from densemble.nets.dense import DenseModel
from densemble.nets.trunks import GraphBackbone

# Convolutions with a fixed weight; others compute theirs in each call (weight standardization).
_FOLDABLE = {"Conv2d", "Conv2dSame", "ResizeConvolution"}


def for_inference(model: DenseModel) -> DenseModel:
    """A copy in eval mode that computes the same logits with less work. Do not train the copy.

    Args:
        model: not changed.

    Returns:
        A model with another ``state_dict``. Weights that are not rewritten share memory with those of ``model``.
    """
    model = same_tensors(model).eval()
    if isinstance(model.backbone, GraphBackbone):
        _fold_graph(model.backbone.network)
    for sequence in [module for module in model.modules() if isinstance(module, nn.Sequential)]:
        _fold_sequence(sequence)
    return model


def same_tensors(model: DenseModel) -> DenseModel:
    """A copy with new modules and parameters that share memory with those of ``model``."""
    memo: dict[int, Tensor] = {}
    for tensor in chain(model.parameters(), model.buffers()):
        data = tensor.detach()
        memo[id(tensor)] = nn.Parameter(data, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else data
    return copy.deepcopy(model, memo)


def _foldable(convolution: nn.Module, normalization: nn.Module) -> bool:
    return (
        (type(convolution).__name__ in _FOLDABLE or isinstance(convolution, nn.ConvTranspose2d))
        and isinstance(normalization, nn.BatchNorm2d)
        and normalization.running_mean is not None
        and type(normalization).__name__ in ("BatchNorm2d", "BatchNormAct2d")
    )


def _fold(network: nn.Module, first: str, second: str) -> None:
    """Fold the normalization named ``second`` into the convolution named ``first``, if that is possible."""
    convolution, normalization = network.get_submodule(first), network.get_submodule(second)
    if not _foldable(convolution, normalization):
        return
    assert isinstance(normalization, nn.BatchNorm2d)
    transposed = isinstance(convolution, nn.ConvTranspose2d)
    folded: nn.Module = fuse_conv_bn_eval(convolution, normalization, transpose=transposed)  # type: ignore[type-var]
    activation = getattr(normalization, "act", None)  # timm's BatchNormAct2d ends with an activation
    network.set_submodule(first, folded)
    network.set_submodule(second, activation if isinstance(activation, nn.Module) else nn.Identity())


def _fold_sequence(sequence: nn.Sequential) -> None:
    for first, second in pairwise([name for name, _ in sequence.named_children()]):
        _fold(sequence, first, second)


def _fold_graph(network: fx.GraphModule) -> None:
    calls = [str(node.target) for node in network.graph.nodes if node.op == "call_module"]
    for node in list(network.graph.nodes):
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) != 1:
            continue
        first, second = str(before.target), str(node.target)
        if calls.count(first) == 1 and calls.count(second) == 1:
            _fold(network, first, second)
