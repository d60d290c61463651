"""Batch normalization of a single value per channel, as for one image whose feature map is 1x1."""

from typing import Any

from torch import nn

_LAYERS = nn.modules.batchnorm._BatchNorm
_MARK = "_densemble_trains"


def normalize_single_values(network: nn.Module) -> None:
    """Make batch normalization use its running statistics for a batch with one value per channel.

    Such a batch has no variance, and torch raises an error. Other batches are normalized as usual. A second call
    changes nothing.
    """
    for layer in network.modules():
        if isinstance(layer, _LAYERS) and layer.track_running_stats and not hasattr(layer, _MARK):
            setattr(layer, _MARK, False)
            layer.register_forward_pre_hook(_before)
            layer.register_forward_hook(_after)


def _before(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
    single = layer.training and inputs[0].numel() == inputs[0].shape[1]
    setattr(layer, _MARK, single)
    if single:
        layer.training = False


def _after(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
    if getattr(layer, _MARK):
        layer.training = True
