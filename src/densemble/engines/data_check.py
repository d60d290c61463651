"""Data check before training: errors stop the training, warnings are logged. Results are cached until files change."""

import hashlib
import json
import logging
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from densemble.data.check import check, group
from densemble.data.check.problems import Severity
from densemble.data.digests import changes, pair_digests
from densemble.data.folder import FolderData
from densemble.errors import ArtifactError, DataError, ResourceError
from densemble.storage.run_records import CheckRecord, optional_record, read_digests
from densemble.storage.runs import RunFolder
from densemble.storage.user_cache import cache_part, prune
from densemble.storage.writing import write_json
from densemble.versions import __version__

log = logging.getLogger(__name__)


def check_and_cache(data: FolderData, unpaired: Severity = "warning") -> dict[str, Any]:
    """Run :func:`densemble.data.check.check`, write its result into the cache, and return it."""
    facts = check(data, unpaired)
    with suppress(DataError, ResourceError, OSError, ValueError):  # the cache is optional
        file = _cache_file(data, unpaired)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, facts)
        prune(file.parent)
    return facts


def require_sound(data: FolderData) -> None:
    """Check the data, or use the cached check of the same files; log the warnings.

    Raises:
        DataError: the data has errors. The message lists each error and its remedy in the format of ``data check``.
    """
    started = time.monotonic()
    facts = _cached_facts(data)
    state = "not changed since the last check" if facts is not None else "checked"
    facts = facts or check_and_cache(data)
    pairs = sum(split["pairs"] for split in facts["splits"].values())
    log.info(f"{pairs} pairs {state} ({time.monotonic() - started:.1f} s)")
    groups = group(facts["problems"])
    for warning in (problems for problems in groups if problems.severity == "warning"):
        for line in warning.lines():
            log.warning(line)
    errors = [problems for problems in groups if problems.severity == "error"]
    if errors:
        count = sum(len(error.problems) for error in errors)
        lines = "\n".join(line for error in errors for line in error.lines())
        raise DataError(
            f"the data has {count} error{'s' if count > 1 else ''}, so nothing was trained:\n{lines}\n"
            f"list all errors with `densemble data check {data.path} --task {data.task_name}`"
        )


def describe_changes(run: RunFolder, digests: dict[str, dict[str, str]]) -> str:
    """Describe what changed in the data since its digests were stored; empty if nothing changed or none are stored.

    Args:
        run: run folder with stored digests of :func:`densemble.data.digests.data_digests`.
        digests: current digests of the data.
    """
    stored = read_digests(run)
    differences = [] if stored is None else changes(stored, digests)
    return (
        f"the data differs from the data that '{run.path}' was trained on: {'; '.join(differences)}"
        if differences
        else ""
    )


def _cached_facts(data: FolderData) -> dict[str, Any] | None:
    with suppress(DataError, ArtifactError, ResourceError, OSError):
        file = _cache_file(data, "warning")
        return optional_record(file, CheckRecord, "the data is checked again")
    return None


def _cache_file(data: FolderData, unpaired: Severity) -> Path:
    """Return the path of the cached check, which depends on all files and reading options of the data.

    Raises:
        DataError: a file cannot be read.
    """
    layout = data.layout
    options = {name: value for name, value in data.options.items() if name != "skip_unpaired"}
    names = [layout.name, layout.split_by, layout.classes, layout.unpaired, layout.doubled]
    names += [unpaired] if layout.unpaired else []
    digests = {split: pair_digests(samples) for split, samples in layout.splits.items()}
    context = [__version__, data.path.resolve(), data.task_name, options, data.color_map, names]
    text = json.dumps([[str(part) for part in context], digests])
    return cache_part("checks") / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
