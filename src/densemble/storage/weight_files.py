"""Write tensors to a safetensors file."""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from densemble.storage.temporary import sweep
from densemble.storage.writing import atomic_path


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors and metadata atomically; :func:`densemble.nets.local_weights.read_state` reads a ``state_dict()``.

    Raises:
        ResourceError: the folder cannot be written or the disk is full.
    """
    # The format does not allow shared tensors, so each one is cloned.
    plain = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}
    sweep(path.parent)
    with atomic_path(path, sum(tensor.nbytes for tensor in plain.values())) as temporary:
        save_file(plain, temporary, metadata)
