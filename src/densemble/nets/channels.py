"""Adapt pretrained networks to images that are not RGB."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def rgb_convolutions(network: nn.Module) -> list[str]:
    """Names of the convolutions with three input channels; in an image classifier, these read the image."""
    return [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and module.in_channels == 3 and module.groups == 1
    ]


def widen(network: nn.Module, names: list[str], in_channels: int) -> None:
    """Change the named convolutions, in place, to accept ``in_channels``.

    For one channel, the RGB filters are summed: a grey image gives the same response as its RGB copy with
    R = G = B. For several channels, the RGB filters are repeated and scaled by 3 / ``in_channels``, which keeps the
    magnitude of the response.
    """
    for name in names:
        convolution = network.get_submodule(name)
        assert isinstance(convolution, nn.Conv2d)
        convolution.weight = nn.Parameter(widened(convolution.weight.detach(), in_channels))
        convolution.in_channels = in_channels


def widened(weight: Tensor, in_channels: int) -> Tensor:
    """Filters ``(O, 3, k, k)`` -> ``(O, in_channels, k, k)``, see :func:`widen`."""
    if in_channels == 1:
        return weight.sum(1, keepdim=True)
    repeated = weight.repeat(1, -(-in_channels // 3), 1, 1)[:, :in_channels]
    return (repeated * (3 / in_channels)).contiguous()


def projection(in_channels: int) -> nn.Conv2d:
    """Trainable 1x1 convolution to three channels, for networks whose first convolution cannot be widened.

    Each output channel starts as the mean of every third input channel.
    """
    layer = nn.Conv2d(in_channels, 3, 1, bias=False)
    weight = torch.zeros(3, in_channels, 1, 1)
    for channel in range(3):
        sources = [i for i in range(in_channels) if i % 3 == channel] or list(range(in_channels))
        weight[channel, sources] = 1 / len(sources)
    with torch.no_grad():
        layer.weight.copy_(weight)
    return layer


def cycled(values: tuple[float, ...], in_channels: int) -> tuple[float, ...]:
    """Normalization values of RGB for ``in_channels``: their mean for one channel, else the values repeated."""
    if in_channels == 1:
        return (sum(values) / len(values),)
    return tuple(values[i % len(values)] for i in range(in_channels))


def adapt(network: nn.Module, in_channels: int, runs: Callable[[], bool]) -> tuple[str, ...]:
    """Widen the first convolutions if the network then runs.

    Args:
        network: changed in place; unchanged if the result is empty.
        in_channels: not three.
        runs: whether the network runs on an image of ``in_channels``.

    Returns:
        Names of the widened convolutions; empty if the network does not run with them.
    """
    names = rgb_convolutions(network)
    original = {name: network.get_submodule(name).weight for name in names}
    widen(network, names, in_channels)
    if names and runs():
        return tuple(names)
    for name, weight in original.items():
        convolution = network.get_submodule(name)
        assert isinstance(convolution, nn.Conv2d) and isinstance(weight, nn.Parameter)
        convolution.weight, convolution.in_channels = weight, 3
    return ()
