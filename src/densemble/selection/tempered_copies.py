"""Tempered copies of kept predictions for as long as a selection reads them: it reads them many times."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from densemble.selection.held_out_predictions import HeldOut
from densemble.selection.map_sources import StoredMaps
from densemble.storage.runs import require_writable
from densemble.storage.tensor_file import TensorFile


@contextmanager
def written_tempered(held: HeldOut, folder: Path) -> Iterator[HeldOut]:
    """The same candidates and images with their temperatures applied once, as 16-bit floats on disk.

    Args:
        held: candidates, images and temperatures.
        folder: gets a temporary folder as large as the predictions of these images.

    Raises:
        ResourceError: the folder cannot be written.
    """
    if all(temperature == 1 for temperature in held.temperatures):
        yield held
        return
    with tempfile.TemporaryDirectory(dir=require_writable(folder), prefix="tempered-") as place:
        copies = []
        for number, (maps, temperature) in enumerate(zip(held.maps, held.temperatures, strict=True)):
            file = TensorFile(Path(place) / f"{number}.bin", "float16")
            for image in held.images:
                file.append(image, maps.read(image, temperature))
            copies.append(StoredMaps(file))
        yield replace(held, maps=tuple(copies), temperatures=(1.0,) * len(copies))
