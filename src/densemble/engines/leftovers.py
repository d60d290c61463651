"""Remove files that only an unfinished training needs: checkpoints, decoded images, cached features."""

import logging
import shutil
from pathlib import Path

from densemble.config import RunConfig
from densemble.storage.run_records import member_state
from densemble.storage.runs import RunFolder

log = logging.getLogger(__name__)
_REASONS = {"failed": "failed", "running": "was interrupted", "damaged": "has a damaged record"}


def remove_leftovers(run: RunFolder, config: RunConfig) -> None:
    """Remove the checkpoints of finished members and, unless a member failed or was interrupted, ``RUN/cache``.

    ``trainer.keep_checkpoints`` keeps all of them. A ``trainer.cache_dir`` outside the run is shared and stays. The log
    names what is removed, and what is kept and why.
    Later commands that need decoded images decode them again.

    Args:
        run: run folder with a saved ensemble.
        config: configuration of the run.
    """
    if config.trainer.keep_checkpoints:
        return
    members = {name: run.member(number, name) for number, name in enumerate(config.member_names())}
    states = {name: member_state(folder) for name, folder in members.items()}
    unfinished = {name: state for name, state in states.items() if state in _REASONS}
    finished = [name for name, state in states.items() if state == "done"]
    removed = {"checkpoints": sum(_remove(file) for name in finished for file in members[name].checkpoints)}
    kept = {"checkpoints": sum(_size(file) for name in unfinished for file in members[name].checkpoints)}
    if unfinished:
        kept["decoded images"] = _size(run.cache)
    else:
        removed["decoded images"] = _remove(run.cache)
    if any(removed.values()):
        log.info(f"removed {_listed(removed)} (--keep-checkpoints keeps them)")
    if any(kept.values()):
        reasons = ", ".join(f"{name} {_REASONS[state]}" for name, state in unfinished.items())
        log.info(f"kept {_listed(kept)} for --resume, because {reasons}")


def _listed(sizes: dict[str, int]) -> str:
    """Return ``28 MB of checkpoints and 39 MB of decoded images``, without parts that have no bytes."""
    return " and ".join(f"{size / 1e6:.1f} MB of {part}" for part, size in sizes.items() if size)


def forget_training(run: RunFolder) -> None:
    """Remove all results of a training on data that has changed: members, variants, scores, ensembles."""
    for path in (
        run.path / "members", run.state, run.variants, run.baselines, run.mean_map, run.ensemble, run.analysis,
        run.report, run.milliseconds, run.leaderboard, run.artifact,
    ):  # fmt: skip
        _remove(path)


def _remove(path: Path) -> int:
    """Remove a file or a folder, which may be absent; return its size in bytes."""
    size = _size(path)
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    return size


def _size(path: Path) -> int:
    """Return the bytes of a file or of all files in a folder; 0 if it is absent."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
