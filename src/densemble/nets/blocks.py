"""Blocks of a backbone, by the names of its parameters: what layer-wise decay counts as one layer."""

import re

from torch import nn

_NUMBERED = re.compile(r"\d+|[A-Za-z_]+_?\d+[a-z]?")


def block_of(parameter: str) -> str:
    """The innermost numbered part that holds the parameter's own layer: ``layer3.4.conv1.weight`` -> ``layer3.4``.

    A layer that lies in no numbered part is a block of its own: ``features.4.weight`` -> ``features.4``.
    """
    *parents, layer, _ = ("", *parameter.split("."))
    numbered = [i for i, part in enumerate(parents) if _NUMBERED.fullmatch(part)]
    kept = parents[: numbered[-1] + 1] if numbered else [*parents, layer]
    return ".".join(part for part in kept if part)


def blocks(network: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Parameters by block, in the order in which the network defines them: from the image to the cut."""
    found: dict[str, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        found.setdefault(block_of(name), []).append(parameter)
    return found
