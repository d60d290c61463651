"""What the files of a data set hold, as one short digest per pair: whether a set is still the one of a training."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from densemble.data.decoded_cache import file_digests
from densemble.data.folder import FolderData
from densemble.data.layouts import Sample
from densemble.data.read_pairs import some

LEARNED_FROM = ("train", "val")
"""Splits that a training depends on."""
_SHOWN = 80
_PATH = re.compile(r"\w*Path\('[^']*'\)")


def pair_digests(samples: Sequence[Sample]) -> dict[str, str]:
    """Digest by stem of all files of a pair and of what is drawn from an annotation file; names do not enter it.

    Raises:
        DataError: a file cannot be read.
    """
    files = [sample.files for sample in samples]
    of_files = iter(file_digests([path for paths in files for path in paths]))
    digests = {}
    for sample, paths in zip(samples, files, strict=True):
        parts = [next(of_files) for _ in paths]
        parts += [_PATH.sub("", repr(sample.drawing))] if sample.drawing is not None else []
        parts += [f"no {name}" for name in sample.absent]
        digests[sample.stem] = hashlib.blake2b(" ".join(parts).encode(), digest_size=8).hexdigest()
    return digests


def data_digests(data: FolderData) -> dict[str, dict[str, str]]:
    """``reading``: how files are read, by the name of each setting; ``train`` and ``val``: see :func:`pair_digests`.

    Raises:
        DataError: a file cannot be read.
    """
    data.settle()
    settings = asdict(data.reading)
    settings = {**settings.pop("options"), **settings}
    settings.pop("channels")  # counted later
    reading = {name: str(tuple(value) if isinstance(value, list) else value) for name, value in settings.items()}
    return {"reading": reading} | {split: pair_digests(data.layout.splits.get(split, ())) for split in LEARNED_FROM}


def changes(before: dict[str, Any], now: dict[str, dict[str, str]]) -> list[str]:
    """What differs between two :func:`data_digests`, in words; a setting or split that one does not know is none."""
    said = []
    for name, value in now.get("reading", {}).items():
        earlier = before.get("reading", {}).get(name, value)
        if earlier != value:
            said.append(f"{name} was {_short(earlier)} and is {_short(value)}")
    for split in LEARNED_FROM:
        if split not in before or split not in now:
            continue
        old, new = before[split], now[split]
        groups = {
            "added": sorted(new.keys() - old.keys()),
            "removed": sorted(old.keys() - new.keys()),
            "changed": sorted(stem for stem in old.keys() & new.keys() if old[stem] != new[stem]),
        }
        said += [f"{split}: {len(stems)} {what} ({some(stems)})" for what, stems in groups.items() if stems]
    return said


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
