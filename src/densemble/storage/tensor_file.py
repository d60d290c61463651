"""TensorFile: tensors appended to one temporary file and read back one at a time."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from densemble.errors import ResourceError


class TensorFile:
    """Tensors of any shapes by an integer key; memory holds the one that is read or written.

    Args:
        path: file to create; the caller removes it.
        dtype: stored precision, ``float32`` or ``float16``. Tensors are always returned as float32.
    """

    def __init__(self, path: Path, dtype: str = "float32") -> None:
        self._path, self._dtype = path, np.dtype(dtype)
        self._places: dict[int, tuple[int, tuple[int, ...]]] = {}
        self._end = 0
        path.touch()

    def append(self, key: int, tensor: Tensor) -> None:
        """Stores a tensor under a key that is not in use.

        Raises:
            ResourceError: the disk is full or the folder cannot be written.
        """
        values = tensor.contiguous().numpy().astype(self._dtype, copy=False)
        try:
            with self._path.open("ab") as file:
                file.write(values.tobytes())
        except OSError as error:
            raise ResourceError(
                f"cannot write '{self._path}': {error.strerror or error}; free some disk space"
            ) from error
        self._places[key] = (self._end, tuple(values.shape))
        self._end += values.nbytes

    def read(self, key: int) -> Tensor:
        """The tensor stored under a key, float32.

        Raises:
            KeyError: nothing is stored under it.
        """
        offset, shape = self._places[key]
        values = np.fromfile(self._path, self._dtype, count=int(np.prod(shape)), offset=offset)
        return torch.from_numpy(values.astype(np.float32, copy=False).reshape(shape))

    def __contains__(self, key: int) -> bool:
        return key in self._places
