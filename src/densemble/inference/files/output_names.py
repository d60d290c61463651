"""Names of the files that are written for images: none overwrites what was written for another image."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from glob import escape
from itertools import chain, count
from pathlib import Path
from threading import Lock

_WRITTEN: defaultdict[str, dict[str, str | int]] = defaultdict(dict)
"""For each folder the names that this process has written, and of which image."""
_BEING_WRITTEN: set[tuple[str, str]] = set()
_LOCK = Lock()


def output_names(images: Sequence[Path | object]) -> list[str]:
    """A file's stem, with its folder and ending where several share it; the place in the row of what is no file."""
    plain = [path.stem if isinstance(path, Path) else str(place) for place, path in enumerate(images)]
    counts = Counter(plain)
    names: list[str] = []
    used: set[str] = set()
    for image, stem in zip(images, plain, strict=True):
        shared = isinstance(image, Path) and counts[stem] > 1
        wanted = _long_name(image) if shared and isinstance(image, Path) else stem
        name = next(name for name in _numbered(wanted) if name not in used)
        used.add(name)
        names.append(name)
    return names


@contextmanager
def name_in(folder: Path, name: str, image: Path | int) -> Iterator[str]:
    """``name``, or another one where files are there that this process has written of another image of that name.

    Args:
        folder: that is written into, before the context ends.
        name: that is wanted.
        image: its file, or a number that no other image has.
    """
    source = image if isinstance(image, int) else str(image.absolute())
    others = _numbered(name if isinstance(image, int) else _long_name(image))
    place = str(folder.absolute())

    def is_taken(own: str) -> bool:
        if _WRITTEN[place].get(own, source) == source:
            return False
        return (place, own) in _BEING_WRITTEN or any(folder.glob(f"{escape(own)}[._]*"))

    with _LOCK:
        name = next(own for own in chain([name], others) if not is_taken(own))
        _WRITTEN[place][name] = source
        _BEING_WRITTEN.add((place, name))
    try:
        yield name
    finally:
        _BEING_WRITTEN.discard((place, name))


def _long_name(path: Path) -> str:
    return f"{path.parent.name}_{path.name.replace('.', '_')}"


def _numbered(name: str) -> Iterator[str]:
    return chain([name], (f"{name}_{number}" for number in count(2)))
