"""What 255 means in masks that nobody has explained: decided for each class over all files of a data set."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from densemble.data.layouts import Sample
from densemble.errors import DataError
from densemble.storage.images import read_planes

WHITE = 255


@dataclass(frozen=True)
class MaskValues:
    """What the masks of each channel hold.

    Attributes:
        white: channels in which 255 is the class: no file of theirs holds a 1 beside it. In the others it is unknown.
        mixed: those of them of which some files hold 255 and others 1.
    """

    white: frozenset[int] = frozenset()
    mixed: frozenset[int] = frozenset()


def find_mask_values(samples: Iterable[Sample]) -> MaskValues:
    """Reads all mask files. Those that cannot be read are passed over: whoever reads them for their pixels says so."""
    ones: set[int] = set()
    whites: set[int] = set()
    both: set[int] = set()

    def look(channel: int | None, path: Path) -> None:
        if channel in both:
            return
        try:
            planes = read_planes(path)
        except DataError:
            return
        for number, plane in enumerate(planes.transpose(2, 0, 1) if channel is None else planes[None, ..., 0]):
            place = number if channel is None else channel
            one, white = bool((plane == 1).any()), bool((plane == WHITE).any())
            for holds, places in ((one, ones), (white, whites), (one and white, both)):
                if holds:
                    places.add(place)

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        list(pool.map(lambda file: look(*file), _files(samples)))
    return MaskValues(frozenset(whites - both), frozenset((whites & ones) - both))


def _files(samples: Iterable[Sample]) -> Iterator[tuple[int | None, Path]]:
    """Channel and file; ``None`` for a file of all channels."""
    for sample in samples:
        if sample.plane_names:
            yield from ((sample.plane_names.index(name), path) for name, path in sample.planes)
        else:
            yield None, sample.target
