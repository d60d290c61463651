"""Blocks of a backbone, derived from parameter names; layer-wise decay treats a block as one layer."""

import re

from torch import nn

_NUMBERED = re.compile(r"\d+|[A-Za-z_]+_?\d+[a-z]?")


def block_of(parameter: str) -> str:
    """Innermost numbered part that contains the layer of the parameter: ``layer3.4.conv1.weight`` -> ``layer3.4``.

    A layer outside numbered parts is a block by itself: ``features.4.weight`` -> ``features.4``.
    """
    *parents, layer, _ = ("", *parameter.split("."))
    numbered = [i for i, part in enumerate(parents) if _NUMBERED.fullmatch(part)]
    kept = parents[: numbered[-1] + 1] if numbered else [*parents, layer]
    return ".".join(part for part in kept if part)


def blocks(network: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Parameters by block, in the order in which the network defines them."""
    by_block: dict[str, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        by_block.setdefault(block_of(name), []).append(parameter)
    return by_block
