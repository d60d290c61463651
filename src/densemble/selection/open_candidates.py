"""Held-out predictions of candidates, opened and checked: what cannot be used is dropped before selection."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from densemble.errors import ArtifactError, WeightsError
from densemble.selection.map_sources import read_map
from densemble.selection.variants.candidate import AGAIN, Candidate
from densemble.shapes import Array


@dataclass(frozen=True)
class Dropped:
    """A candidate that cannot be used, and why."""

    name: str
    reason: str


def open_all(
    candidates: Sequence[Candidate], images: int, channels: int
) -> tuple[list[Candidate], list[Array], list[Dropped]]:
    """Maps the kept predictions of all candidates into memory and reads them once.

    Args:
        candidates: in their order.
        images: number of validation images.
        channels: K.

    Returns:
        Those that can be used, their maps ``(N, K, h, w)``, and those that cannot: predictions or weights that are
        missing or damaged, a wrong shape, NaN or infinity.
    """
    kept: list[tuple[Candidate, Array]] = []
    dropped = []
    sound: set[Path] = set()
    for candidate in candidates:
        try:
            maps = _open(candidate.predictions, images, channels)
            if candidate.weights not in sound:
                candidate.network()
                sound.add(candidate.weights)
            kept.append((candidate, maps))
        except (ArtifactError, WeightsError) as error:
            dropped.append(Dropped(candidate.name, str(error)))
    sizes = Counter(maps.shape[-2:] for _, maps in kept)
    usual = sizes.most_common(1)[0][0] if sizes else None
    for candidate, maps in kept:
        if maps.shape[-2:] != usual:
            own, others = ("x".join(str(side) for side in shape) for shape in (maps.shape[-2:], usual or ()))
            reason = f"its kept maps are {own}, those of the others {others}; {AGAIN}"
            dropped.append(Dropped(candidate.name, reason))
    usable = [(candidate, maps) for candidate, maps in kept if maps.shape[-2:] == usual]
    return [candidate for candidate, _ in usable], [maps for _, maps in usable], dropped


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
    for number in range(images):
        if not np.isfinite(read_map(maps, number)).all():
            raise ArtifactError(f"its prediction of image {number} holds NaN or infinity ('{path}'); {AGAIN}")
    return maps


def _short(error: Exception) -> str:
    """Without the path, which the message names already."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def require_enough(
    left: int, dropped: Sequence[Dropped], least: int, named: Sequence[str], report: Callable[[str], None]
) -> None:
    """Says what was dropped.

    Raises:
        ArtifactError: fewer than ``least`` candidates are left, or one of those that are asked for by name is not.
    """
    for one in dropped:
        report(f"dropped: {one.name}: {one.reason}")
        if one.name in named:
            raise ArtifactError(f"'{one.name}' cannot be used: {one.reason}; or leave it out of --select")
    if left < max(least, 1):
        reasons = "; ".join(f"{one.name}: {one.reason}" for one in dropped) or "no other is trained"
        raise ArtifactError(
            f"{left} usable member{'' if left == 1 else 's'}, at least {max(least, 1)} are needed "
            f"(--min-members): {reasons}"
        )
