"""Names of output files: no file overwrites that of another image.

Names that differ only in case count as equal, because they are one file on Windows and macOS. Long names are shortened.
"""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path
from threading import Lock

_MOST_BYTES = 200  # most file systems allow 255; endings such as _uncertainty_view.png.aux.xml follow
_WRITTEN: defaultdict[str, dict[str, str | int]] = defaultdict(dict)
"""For each folder, the names that this process has written, in lower case, with their image."""
_BEING_WRITTEN: set[tuple[str, str]] = set()
_LOCK = Lock()


def output_names(images: Sequence[Path | object]) -> list[str]:
    """Stem of each file, with folder and suffix added if several files share it; the index of images without a file."""
    plain = [_short(path.stem) if isinstance(path, Path) else str(index) for index, path in enumerate(images)]
    counts = Counter(stem.casefold() for stem in plain)
    names: list[str] = []
    used: set[str] = set()
    for image, stem in zip(images, plain, strict=True):
        shared = isinstance(image, Path) and counts[stem.casefold()] > 1
        preferred = _long_name(image) if shared and isinstance(image, Path) else stem
        name = next(name for name in _numbered(preferred) if name.casefold() not in used)
        used.add(name.casefold())
        names.append(name)
    return names


@contextmanager
def name_in(folder: Path, name: str, image: Path | int) -> Iterator[str]:
    """Reserve a name for an image: ``name``, or another one if this process has used it for another image.

    Args:
        folder: folder that is written into before the context ends.
        name: preferred name.
        image: file of the image, or a number that no other image has.
    """
    source = image if isinstance(image, int) else str(image.absolute())
    others = _numbered(name if isinstance(image, int) else _long_name(image))
    location = str(folder.absolute())

    def is_taken(candidate: str) -> bool:
        if _WRITTEN[location].get(candidate.casefold(), source) == source:
            return False
        beginnings = tuple(f"{candidate.casefold()}{end}" for end in "._")
        is_used = any(path.name.casefold().startswith(beginnings) for path in folder.glob("*"))
        return is_used or (location, candidate.casefold()) in _BEING_WRITTEN

    with _LOCK:
        name = next(candidate for candidate in chain([name], others) if not is_taken(candidate))
        _WRITTEN[location][name.casefold()] = source
        _BEING_WRITTEN.add((location, name.casefold()))
    try:
        yield name
    finally:
        _BEING_WRITTEN.discard((location, name.casefold()))


def _long_name(path: Path) -> str:
    return _short(f"{path.parent.name}_{path.name.replace('.', '_')}")


def _short(name: str) -> str:
    """Shorten a name of many bytes and mark it with its hash, so that file systems allow endings behind it."""
    encoded = os.fsencode(name)
    if len(encoded) <= _MOST_BYTES:
        return name
    digest = hashlib.sha256(encoded).hexdigest()[:12]
    return f"{encoded[: _MOST_BYTES - len(digest) - 1].decode('utf-8', 'ignore')}-{digest}"


def _numbered(name: str) -> Iterator[str]:
    return chain([name], (f"{name}_{number}" for number in count(2)))
