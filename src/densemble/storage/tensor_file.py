"""Store tensors in a temporary file and read them back one at a time."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from densemble.storage.writing import writing


class TensorFile:
    """Tensors of any shape in one file, by integer key; memory holds one tensor at a time.

    Args:
        path: file to create, in a temporary folder; the caller removes it.
        dtype: stored precision, ``float32`` or ``float16``. Tensors are always returned as float32.
    """

    def __init__(self, path: Path, dtype: str = "float32") -> None:
        self._path, self._dtype = path, np.dtype(dtype)
        self._entries: dict[int, tuple[int, tuple[int, ...]]] = {}  # offset and shape
        self._end = 0
        with writing(path):
            path.touch(exist_ok=False)

    def append(self, key: int, tensor: Tensor) -> None:
        """Store a tensor under an unused key.

        Raises:
            ResourceError: the disk is full or the folder cannot be written.
        """
        values = tensor.contiguous().numpy().astype(self._dtype, copy=False)
        with writing(self._path, needed=values.nbytes), self._path.open("ab") as file:
            file.write(values.tobytes())
        self._entries[key] = (self._end, tuple(values.shape))
        self._end += values.nbytes

    def read(self, key: int) -> Tensor:
        """Read the tensor of a key, float32.

        Raises:
            KeyError: unknown key.
        """
        offset, shape = self._entries[key]
        values = np.fromfile(self._path, self._dtype, count=int(np.prod(shape)), offset=offset)
        return torch.from_numpy(values.astype(np.float32, copy=False).reshape(shape))

    def __contains__(self, key: int) -> bool:
        return key in self._entries
