"""The data check before a training: errors stop it, warnings are reported. What it finds is kept until files change."""

import hashlib
import json
import logging
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from densemble.data.check import check, group
from densemble.data.check.problems import Severity
from densemble.data.digests import changes, pair_digests
from densemble.data.folder import FolderData
from densemble.errors import ArtifactError, DataError, ResourceError
from densemble.inference.runtime.disk_cache import cache_folder, prune
from densemble.storage.runs import read_json, write_json

log = logging.getLogger(__name__)


def check_and_keep(data: FolderData, unpaired: Severity = "warning") -> dict[str, Any]:
    """Facts of :func:`densemble.data.check.check`, which are written into the cache as well."""
    facts = check(data, unpaired)
    with suppress(DataError, ResourceError, OSError, ValueError):  # it works without, only later
        place = _place(data, unpaired)
        place.parent.mkdir(parents=True, exist_ok=True)
        write_json(place, facts)
        prune(place.parent)
    return facts


def require_sound(data: FolderData) -> None:
    """Checks the data, or takes what an earlier check of the same files found; logs warnings.

    Raises:
        DataError: there are errors; each with its remedy, as ``data check`` prints them.
    """
    started = time.monotonic()
    facts = _kept(data)
    how = "as checked before" if facts is not None else "checked"
    facts = facts or check_and_keep(data)
    pairs = sum(split["pairs"] for split in facts["splits"].values())
    log.info(f"{pairs} pairs {how} in {time.monotonic() - started:.1f} s")
    found = group(facts["problems"])
    for warned in (one for one in found if one.severity == "warning"):
        for line in warned.lines():
            log.warning(line)
    errors = [one for one in found if one.severity == "error"]
    if errors:
        count = sum(len(one.problems) for one in errors)
        shown = "\n".join(line for one in errors for line in one.lines())
        raise DataError(
            f"the data has {count} error{'s' if count > 1 else ''}, nothing was trained:\n{shown}\n"
            f"see them all with `densemble data check {data.path} --task {data.task_name}`"
        )


def what_changed(place: Path, digests: dict[str, dict[str, str]]) -> str:
    """How data differs from what ``place`` says of it, as half a sentence; empty where it does not, or nothing is said.

    Args:
        place: file of :func:`densemble.data.digests.data_digests`.
        digests: of the data now.
    """
    found = changes(read_json(place), digests) if place.is_file() else []
    return f"the data is not what '{place.parent}' was trained on: {'; '.join(found)}" if found else ""


def _kept(data: FolderData) -> dict[str, Any] | None:
    with suppress(DataError, ArtifactError, OSError):
        place = _place(data, "warning")
        if place.is_file():
            return read_json(place)
    return None


def _place(data: FolderData, unpaired: Severity) -> Path:
    """Where the facts about these files, read in this way, are kept.

    Raises:
        DataError: a file cannot be read.
    """
    layout = data.layout
    options = {name: value for name, value in data.options.items() if name != "skip_unpaired"}
    names = [layout.name, layout.split_by, layout.classes, layout.unpaired, layout.doubled]
    names += [unpaired] if layout.unpaired else []
    digests = {split: pair_digests(samples) for split, samples in layout.splits.items()}
    read = [version("densemble"), data.path.resolve(), data.task_name, options, data.color_map, names]
    text = json.dumps([[str(part) for part in read], digests])
    return cache_folder() / "checks" / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
