"""Files of a run that only an unfinished training needs: checkpoints, decoded images, frozen features."""

import logging
import shutil
from pathlib import Path

from densemble.config import RunConfig
from densemble.storage.runs import RunFolder, read_json

log = logging.getLogger(__name__)


def remove_leftovers(run: RunFolder, config: RunConfig) -> None:
    """Removes ``last.ckpt`` of finished members and, when no member has failed or was cut off, ``RUN/cache``.

    Nothing is removed with ``trainer.keep_checkpoints``. A ``trainer.cache_dir`` outside the run is shared and stays.
    Whatever needs decoded images later decodes them again.

    Args:
        run: whose ensemble is saved.
        config: of the run.
    """
    if config.trainer.keep_checkpoints:
        return
    unfinished, size = False, 0
    for number, name in enumerate(config.member_names()):
        folder = run.member(number, name)
        state = read_json(folder.record).get("state") if folder.record.is_file() else "left out"
        if state == "done":
            size += _remove(folder.last)
        unfinished |= state in ("failed", "running")
    if not unfinished:
        size += _remove(run.cache)
    if size:
        log.info(f"removed {size / 1e6:.0f} MB of checkpoints and decoded images (--keep-checkpoints keeps them)")


def forget_training(run: RunFolder) -> None:
    """Removes all that was learned or measured on data that has changed: members, variants, scores, ensembles."""
    for path in (
        run.path / "members", run.state, run.variants, run.baselines, run.mean_map, run.ensemble, run.analysis,
        run.report, run.milliseconds, run.leaderboard, run.artifact,
    ):  # fmt: skip
        _remove(path)


def _remove(path: Path) -> int:
    """Removes a file or a folder that may be absent; returns its bytes."""
    if path.is_dir():
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        shutil.rmtree(path, ignore_errors=True)
        return size
    size = path.stat().st_size if path.is_file() else 0
    path.unlink(missing_ok=True)
    return size
