"""Several networks as one network of several outputs, so that a backend compiles and calls them as one."""

from collections.abc import Sequence

from torch import Tensor, nn

from densemble.inference.runtime.backends.backend import as_list


class Joined(nn.Module):
    """Networks that take the same normalized images ``(B, C, H, W)``, one after the other -> all their outputs.

    Each call of a compiled network costs time, and so does waiting for its last thread: joined, small networks take
    less. Layers of equal architectures fused into grouped convolutions took more.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, normalized: Tensor) -> tuple[Tensor, ...]:
        """Normalized images ``(B, C, H, W)`` -> the outputs of the networks, in their order."""
        return tuple(output for network in self.networks for output in as_list(network(normalized)))
