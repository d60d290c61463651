"""The same map for less: batch normalization is folded into the convolution before it.

The plain model stays as it is and is the reference: both give the same map up to rounding.
"""

import copy
from itertools import chain, pairwise

from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from densemble.nets.dense import DenseModel
from densemble.nets.trunks import GraphBackbone

# Convolutions whose weight is what it says; others compute theirs anew at each call (weight standardization).
_PLAIN = {"Conv2d", "Conv2dSame", "ResizeConvolution"}


def for_inference(model: DenseModel) -> DenseModel:
    """A copy in eval mode that gives the same logits with less work; it is not meant to be trained.

    Args:
        model: left as it is.

    Returns:
        A model whose ``state_dict`` differs from the plain one's. Weights that are not rewritten are the plain one's
        own, in the same memory.
    """
    model = same_tensors(model).eval()
    if isinstance(model.backbone, GraphBackbone):
        _fold_graph(model.backbone.network)
    for sequence in [module for module in model.modules() if isinstance(module, nn.Sequential)]:
        _fold_sequence(sequence)
    return model


def same_tensors(model: DenseModel) -> DenseModel:
    """A copy with modules and parameters of its own, which hold the numbers of the given one in the same memory."""
    memo: dict[int, Tensor] = {}
    for tensor in chain(model.parameters(), model.buffers()):
        own = tensor.detach()
        memo[id(tensor)] = nn.Parameter(own, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else own
    return copy.deepcopy(model, memo)


def _foldable(convolution: nn.Module, normalization: nn.Module) -> bool:
    return (
        (type(convolution).__name__ in _PLAIN or isinstance(convolution, nn.ConvTranspose2d))
        and isinstance(normalization, nn.BatchNorm2d)
        and normalization.running_mean is not None
        and type(normalization).__name__ in ("BatchNorm2d", "BatchNormAct2d")
    )


def _fold(convolution: nn.Module, normalization: nn.BatchNorm2d) -> tuple[nn.Module, nn.Module]:
    """The convolution with the normalization in it, and what is left of the normalization."""
    transposed = isinstance(convolution, nn.ConvTranspose2d)
    folded: nn.Module = fuse_conv_bn_eval(convolution, normalization, transpose=transposed)  # type: ignore[type-var]
    left = getattr(normalization, "act", None)  # timm's BatchNormAct2d ends with an activation
    return folded, left if isinstance(left, nn.Module) else nn.Identity()


def _fold_sequence(sequence: nn.Sequential) -> None:
    for (first, convolution), (second, normalization) in pairwise(list(sequence.named_children())):
        if _foldable(convolution, normalization):
            assert isinstance(normalization, nn.BatchNorm2d)
            folded, left = _fold(convolution, normalization)
            setattr(sequence, first, folded)
            setattr(sequence, second, left)


def _fold_graph(network: fx.GraphModule) -> None:
    calls = [str(node.target) for node in network.graph.nodes if node.op == "call_module"]
    for node in list(network.graph.nodes):
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) != 1:
            continue
        first, second = str(before.target), str(node.target)
        convolution, normalization = network.get_submodule(first), network.get_submodule(second)
        if calls.count(first) != 1 or calls.count(second) != 1 or not _foldable(convolution, normalization):
            continue
        assert isinstance(normalization, nn.BatchNorm2d)
        folded, left = _fold(convolution, normalization)
        _put(network, first, folded)
        _put(network, second, left)


def _put(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, module)
