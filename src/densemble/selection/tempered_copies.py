"""Tempered copies of kept predictions on disk, because a selection reads the predictions many times."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from densemble.selection.held_out_predictions import HeldOut
from densemble.selection.map_sources import StoredMaps
from densemble.storage.tensor_file import TensorFile
from densemble.storage.writing import scratch_folder


@contextmanager
def written_tempered(held: HeldOut, folder: Path) -> Iterator[HeldOut]:
    """Apply the temperatures once and store the maps as float16 while the context is open.

    Args:
        held: candidates, images and temperatures.
        folder: receives a temporary folder of the size of the predictions of these images.

    Yields:
        The same candidates and images with temperatures of 1.

    Raises:
        ResourceError: the folder cannot be written.
    """
    if all(temperature == 1 for temperature in held.temperatures):
        yield held
        return
    with scratch_folder(folder) as temporary:
        copies = []
        for number, (maps, temperature) in enumerate(zip(held.maps, held.temperatures, strict=True)):
            file = TensorFile(temporary / f"{number}.bin", "float16")
            for image in held.images:
                file.append(image, maps.read(image, temperature))
            copies.append(StoredMaps(file))
        yield replace(held, maps=tuple(copies), temperatures=(1.0,) * len(copies))
