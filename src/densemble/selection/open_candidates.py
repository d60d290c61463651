"""Open and check the kept predictions of candidates; unusable candidates are dropped before selection."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from densemble.errors import ArtifactError, WeightsError
from densemble.selection.map_sources import read_map
from densemble.selection.variants.candidate import AGAIN, Candidate
from densemble.shapes import Array, format_size, size_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dropped:
    """A candidate that cannot be used, and the reason."""

    name: str
    reason: str


def open_all(
    candidates: Sequence[Candidate], images: int, channels: int
) -> tuple[list[Candidate], list[Array], list[Dropped]]:
    """Memory-map the kept predictions of all candidates and read them once to check them.

    Args:
        candidates: candidates in their order.
        images: number of validation images.
        channels: K.

    Returns:
        The usable candidates, their maps ``(N, K, h, w)``, and the dropped candidates: predictions or weights are
        missing or damaged, or maps have a wrong shape, NaN or infinity.
    """
    opened: list[tuple[Candidate, Array]] = []
    dropped = []
    checked_weights: set[Path] = set()
    for candidate in candidates:
        try:
            maps = _open(candidate.predictions, images, channels)
            if candidate.weights not in checked_weights:
                candidate.network()
                checked_weights.add(candidate.weights)
            opened.append((candidate, maps))
        except (ArtifactError, WeightsError) as error:
            dropped.append(Dropped(candidate.name, str(error)))
    sizes = Counter(size_of(maps) for _, maps in opened)
    usable, usable_maps = [], []
    for candidate, maps in opened:
        usual = sizes.most_common(1)[0][0]
        if size_of(maps) == usual:
            usable.append(candidate)
            usable_maps.append(maps)
            continue
        reason = f"its kept maps are {format_size(size_of(maps))}, those of the others {format_size(usual)}; {AGAIN}"
        dropped.append(Dropped(candidate.name, reason))
    return usable, usable_maps, dropped


def _open(path: Path, images: int, channels: int) -> Array:
    try:
        maps: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ArtifactError(f"cannot read its predictions '{path}' ({_short(error)}); {AGAIN}") from error
    if maps.ndim != 4 or maps.shape[:2] != (images, channels) or not maps.size or maps.dtype.kind != "f":
        raise ArtifactError(
            f"its predictions '{path}' are {maps.dtype} {maps.shape} instead of floats ({images}, {channels}, h, w); "
            f"{AGAIN}"
        )
    for index in range(images):
        if not np.isfinite(read_map(maps, index)).all():
            raise ArtifactError(f"its prediction of image {index} contains NaN or infinity ('{path}'); {AGAIN}")
    return maps


def _short(error: Exception) -> str:
    """Text of an error without the path, because the message contains the path already."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def require_enough(usable: int, dropped: Sequence[Dropped], min_members: int, named: Sequence[str]) -> None:
    """Log the dropped candidates and check the number of usable ones.

    Raises:
        ArtifactError: fewer than ``min_members`` candidates are usable, or a candidate in ``named`` is dropped.
    """
    for candidate in dropped:
        log.info(f"dropped: {candidate.name}: {candidate.reason}")
        if candidate.name in named:
            raise ArtifactError(f"'{candidate.name}' cannot be used: {candidate.reason}; or leave it out of --select")
    if usable < max(min_members, 1):
        reasons = "; ".join(f"{candidate.name}: {candidate.reason}" for candidate in dropped)
        raise ArtifactError(
            f"{usable} usable member{'' if usable == 1 else 's'}, at least {max(min_members, 1)} are needed "
            f"(--min-members): {reasons or 'no other member is trained'}"
        )
