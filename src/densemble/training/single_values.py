"""Batch normalization of a single value per channel: a batch of one image where a map is 1x1 (pooled, or deepest)."""

from typing import Any

from torch import nn

_LAYERS = nn.modules.batchnorm._BatchNorm
_MARK = "_densemble_trains"


def normalize_single_values(network: nn.Module) -> None:
    """Lets layers of batch normalization use their running statistics wherever a batch has one value per channel.

    Such a batch has no variance, and torch refuses it. Other batches are normalized by themselves as ever. Called
    again it changes nothing.
    """
    for layer in network.modules():
        if isinstance(layer, _LAYERS) and layer.track_running_stats and not hasattr(layer, _MARK):
            setattr(layer, _MARK, False)
            layer.register_forward_pre_hook(_before)
            layer.register_forward_hook(_after)


def _before(layer: nn.Module, given: tuple[Any, ...]) -> None:
    single = layer.training and given[0].numel() == given[0].shape[1]
    setattr(layer, _MARK, single)
    if single:
        layer.training = False


def _after(layer: nn.Module, given: tuple[Any, ...], output: Any) -> None:
    if getattr(layer, _MARK):
        layer.training = True
