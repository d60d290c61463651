"""Images of other channels than RGB: how a pretrained network's first convolution is made to take them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def rgb_convolutions(network: nn.Module) -> list[str]:
    """Names of the convolutions that take three channels: in an image classifier, those that see the image."""
    return [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and module.in_channels == 3 and module.groups == 1
    ]


def widen(network: nn.Module, names: list[str], in_channels: int) -> None:
    """Makes the named convolutions take ``in_channels``, in place.

    One channel: the sum of the RGB filters, so that a grey image gives what it gave as R = G = B. Several: the
    RGB filters in turn, scaled by 3 / ``in_channels``, so that the response keeps its size.
    """
    for name in names:
        convolution = network.get_submodule(name)
        assert isinstance(convolution, nn.Conv2d)
        convolution.weight = nn.Parameter(widened(convolution.weight.detach(), in_channels))
        convolution.in_channels = in_channels


def widened(weight: Tensor, in_channels: int) -> Tensor:
    """Filters ``(O, 3, k, k)`` -> ``(O, in_channels, k, k)``."""
    if in_channels == 1:
        return weight.sum(1, keepdim=True)
    repeated = weight.repeat(1, -(-in_channels // 3), 1, 1)[:, :in_channels]
    return (repeated * (3 / in_channels)).contiguous()


def projection(in_channels: int) -> nn.Conv2d:
    """1x1 convolution to three channels, for networks that do more with RGB than convolve it.

    Each of the three begins as the mean of the channels it stands for; it is learned with the rest.
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
    """Normalization of RGB for ``in_channels``: the mean of the three for one, else the three in turn."""
    if in_channels == 1:
        return (sum(values) / len(values),)
    return tuple(values[i % len(values)] for i in range(in_channels))


def adapt(network: nn.Module, in_channels: int, runs: Callable[[], bool]) -> tuple[str, ...]:
    """Widens the first convolutions where the network then runs; names them, or nothing where it does not.

    Args:
        network: changed in place, and left as it was where the result is empty.
        in_channels: other than three.
        runs: whether the network, as it stands, runs on an image of ``in_channels``.
    """
    names = rgb_convolutions(network)
    kept = {name: network.get_submodule(name).weight for name in names}
    widen(network, names, in_channels)
    if names and runs():
        return tuple(names)
    for name, weight in kept.items():
        convolution = network.get_submodule(name)
        assert isinstance(convolution, nn.Conv2d) and isinstance(weight, nn.Parameter)
        convolution.weight, convolution.in_channels = weight, 3
    return ()
