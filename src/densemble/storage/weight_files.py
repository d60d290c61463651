"""Weights of one network as a safetensors file, and maps as an array file: whole or not at all."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file
from torch import Tensor

from densemble.storage.runs import atomic_path


def write_state(path: Path, state: Mapping[str, Tensor]) -> None:
    """Writes a ``state_dict()``; :func:`densemble.nets.local_weights.read_state` reads it.

    Raises:
        ResourceError: the folder cannot be written or the disk is full.
    """
    # Networks may share a tensor between two names, which the format refuses.
    plain = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in state.items()}
    with atomic_path(path) as temporary:
        save_file(plain, temporary)


def write_maps(path: Path, maps: np.ndarray[Any, Any]) -> None:
    """Writes kept predictions ``(N, K, h, w)`` as NPY.

    Raises:
        ResourceError: the folder cannot be written or the disk is full.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, maps)
