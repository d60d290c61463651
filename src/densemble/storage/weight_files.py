"""Write the weights of one network as a safetensors file."""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from densemble.storage.runs import atomic_path


def write_state(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write a ``state_dict()`` atomically; :func:`densemble.nets.local_weights.read_state` reads it.

    Raises:
        ResourceError: the folder cannot be written or the disk is full.
    """
    # The format does not allow shared tensors, so each one is cloned.
    plain = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in state.items()}
    with atomic_path(path) as temporary:
        save_file(plain, temporary)
