"""Several networks as one network with several outputs, which a backend compiles and calls as one."""

from collections.abc import Sequence

from torch import Tensor, nn

from densemble.inference.runtime.backends.backend import as_list


class MultiOutputNetwork(nn.Module):
    """Networks that take the same normalized images ``(B, C, H, W)``, run one after the other.

    Each call of a compiled network costs time, and so does waiting for its last thread: as one network, small networks
    take less time. Layers of equal architectures fused into grouped convolutions took more.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, normalized: Tensor) -> tuple[Tensor, ...]:
        """Normalized images ``(B, C, H, W)`` -> the outputs of all networks, in their order."""
        return tuple(output for network in self.networks for output in as_list(network(normalized)))
