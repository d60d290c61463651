"""Remove files that only an unfinished training needs: checkpoints, decoded images, cached features."""

import logging
import shutil
from pathlib import Path

from densemble.config import RunConfig
from densemble.storage.runs import MemberFolder, RunFolder, read_json

log = logging.getLogger(__name__)


def remove_leftovers(run: RunFolder, config: RunConfig) -> None:
    """Remove ``last.ckpt`` of finished members and, unless a member failed or was interrupted, ``RUN/cache``.

    ``trainer.keep_checkpoints`` keeps all of them. A ``trainer.cache_dir`` outside the run is shared and stays.
    Later commands that need decoded images decode them again.

    Args:
        run: run folder with a saved ensemble.
        config: configuration of the run.
    """
    if config.trainer.keep_checkpoints:
        return
    unfinished, size = False, 0
    for number, name in enumerate(config.member_names()):
        folder = run.member(number, name)
        state = member_state(folder)
        if state == "done":
            size += _remove(folder.last)
        unfinished |= state in ("failed", "running")
    if not unfinished:
        size += _remove(run.cache)
    if size:
        log.info(f"removed {size / 1e6:.0f} MB of checkpoints and decoded images (--keep-checkpoints keeps them)")


def member_state(folder: MemberFolder) -> str:
    """Return the state in the record of a member, ``left out`` if it has none."""
    return str(read_json(folder.record).get("state")) if folder.record.is_file() else "left out"


def forget_training(run: RunFolder) -> None:
    """Remove all results of a training on data that has changed: members, variants, scores, ensembles."""
    for path in (
        run.path / "members", run.state, run.variants, run.baselines, run.mean_map, run.ensemble, run.analysis,
        run.report, run.milliseconds, run.leaderboard, run.artifact,
    ):  # fmt: skip
        _remove(path)


def _remove(path: Path) -> int:
    """Remove a file or a folder, which may be absent; return its size in bytes."""
    if path.is_dir():
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        shutil.rmtree(path, ignore_errors=True)
        return size
    size = path.stat().st_size if path.is_file() else 0
    path.unlink(missing_ok=True)
    return size
