"""Decides what 255 means in masks without a label map, for each class over all files of a data set."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from densemble.data.layouts import Sample
from densemble.data.parallel import map_in_threads
from densemble.errors import DataError
from densemble.storage.images import read_planes

WHITE = 255


@dataclass(frozen=True)
class MaskValues:
    """Meaning of 255 in the masks of each channel.

    Attributes:
        white: channels in which 255 is the class, because none of their files holds both 1 and 255. In all other
            channels 255 means unknown.
        mixed: channels of ``white`` in which some files hold 255 and others 1.
    """

    white: frozenset[int] = frozenset()
    mixed: frozenset[int] = frozenset()


def find_mask_values(samples: Iterable[Sample]) -> MaskValues:
    """Reads all mask files. Unreadable files are skipped: they are reported when their pixels are read."""
    with_one: set[int] = set()
    with_white: set[int] = set()
    with_both: set[int] = set()

    def look(file: tuple[int | None, Path]) -> None:
        file_channel, path = file
        if file_channel in with_both:
            return
        try:
            planes = read_planes(path)
        except DataError:
            return
        for number, plane in enumerate(planes.transpose(2, 0, 1) if file_channel is None else planes[None, ..., 0]):
            channel = number if file_channel is None else file_channel
            has_one, has_white = bool((plane == 1).any()), bool((plane == WHITE).any())
            for holds, channels in ((has_one, with_one), (has_white, with_white), (has_one and has_white, with_both)):
                if holds:
                    channels.add(channel)

    map_in_threads(look, _files(samples), "reading masks")
    return MaskValues(frozenset(with_white - with_both), frozenset((with_white & with_one) - with_both))


def _files(samples: Iterable[Sample]) -> Iterator[tuple[int | None, Path]]:
    """Channel and file; the channel is ``None`` for a file that holds all channels."""
    for sample in samples:
        if sample.plane_names:
            yield from ((sample.plane_names.index(name), path) for name, path in sample.planes)
        else:
            yield None, sample.target
