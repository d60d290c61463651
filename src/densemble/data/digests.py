"""Digests of the files of a data set, one per pair, to detect that a data set differs from that of a training."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from densemble.data.decoded_cache import file_digests
from densemble.data.folder import FolderData
from densemble.data.layouts import Sample
from densemble.data.read_pairs import first_few

LEARNED_FROM = ("train", "val")
"""Splits that a training depends on."""
_LONGEST = 80
_PATH = re.compile(r"\w*Path\('[^']*'\)")


def pair_digests(samples: Sequence[Sample]) -> dict[str, str]:
    """Digest of each pair by stem: of all its files and of its shapes in an annotation file, but not of file names.

    Raises:
        DataError: a file cannot be read.
    """
    files = [sample.files for sample in samples]
    digests_of_files = iter(file_digests([path for paths in files for path in paths]))
    digests = {}
    for sample, paths in zip(samples, files, strict=True):
        parts = [next(digests_of_files) for _ in paths]
        parts += [_PATH.sub("", repr(sample.drawing))] if sample.drawing is not None else []
        parts += [f"no {name}" for name in sample.absent]
        digests[sample.stem] = hashlib.blake2b(" ".join(parts).encode(), digest_size=8).hexdigest()
    return digests


def data_digests(data: FolderData) -> dict[str, dict[str, str]]:
    """Digests of a data set: ``reading`` holds the reading settings by name, ``train`` and ``val`` the pair digests.

    Raises:
        DataError: a file cannot be read.
    """
    data.settle()
    settings = asdict(data.reading)
    settings = {**settings.pop("options"), **settings}
    settings.pop("channels")  # it is known only later
    reading = {name: str(tuple(value) if isinstance(value, list) else value) for name, value in settings.items()}
    return {"reading": reading} | {split: pair_digests(data.layout.splits.get(split, ())) for split in LEARNED_FROM}


def changes(before: dict[str, Any], now: dict[str, dict[str, str]]) -> list[str]:
    """Describes the differences of two :func:`data_digests`; settings and splits that one of them lacks are ignored."""
    descriptions = []
    for name, value in now.get("reading", {}).items():
        earlier = before.get("reading", {}).get(name, value)
        if earlier != value:
            descriptions.append(f"{name} was {_short(earlier)} and is {_short(value)}")
    for split in LEARNED_FROM:
        if split not in before or split not in now:
            continue
        old, new = before[split], now[split]
        groups = {
            "added": sorted(new.keys() - old.keys()),
            "removed": sorted(old.keys() - new.keys()),
            "changed": sorted(stem for stem in old.keys() & new.keys() if old[stem] != new[stem]),
        }
        descriptions += [
            f"{split}: {len(stems)} {what} ({first_few(stems)})" for what, stems in groups.items() if stems
        ]
    return descriptions


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
