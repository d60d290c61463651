"""Tempered predictions on disk for as long as an assembly takes: they are read many times over."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from densemble.heldout.predictions import HeldOut
from densemble.storage.runs import require_writable


@contextmanager
def written_tempered(held: HeldOut, folder: Path) -> Iterator[HeldOut]:
    """The same candidates with their temperatures applied to what is read, 16-bit floats as the predictions are.

    Args:
        held: whose maps are tempered, of all pictures and not only those that it reads.
        folder: gets a temporary folder as large as the predictions.

    Raises:
        ResourceError: the folder cannot be written.
    """
    if all(temperature == 1 for temperature in held.temperatures):
        yield held
        return
    with tempfile.TemporaryDirectory(dir=require_writable(folder), prefix="tempered-") as place:
        written = []
        for number, name in enumerate(held.names):
            own = held.of([name])
            shape = held.maps[number].shape
            target = np.lib.format.open_memmap(Path(place) / f"{number}.npy", mode="w+", dtype=np.float16, shape=shape)
            for picture in range(shape[0]):
                target[picture] = own.read(picture)[0].numpy()
            target.flush()
            written.append(np.load(Path(place) / f"{number}.npy", mmap_mode="r"))
        yield replace(held, maps=tuple(written), temperatures=(1.0,) * len(written))
