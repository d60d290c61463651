"""Paths of a run folder, and its JSON."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densemble.errors import ArtifactError, UsageError
from densemble.untrusted import Unreadable, read_json_file


def strict(value: Any) -> Any:
    """Replace NaN and infinity by ``None`` because strict JSON has neither."""
    if isinstance(value, dict):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file of a run.

    Raises:
        ArtifactError: the file does not exist or is not a JSON object.
    """
    try:
        values = read_json_file(path)
    except (OSError, Unreadable) as error:
        reason = getattr(error, "strerror", None) or error
        raise ArtifactError(f"cannot read '{path}': {reason}; is it a run folder of `densemble train`?") from error
    if not isinstance(values, dict):
        raise ArtifactError(f"'{path}' holds no JSON object; is it a run folder of `densemble train`?")
    return values


class _File:
    """A path inside one of the folders below, given by its name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, folder: "MemberFolder | VariantFolder | RunFolder", owner: type) -> Path:
        return folder.path / self._name


@dataclass(frozen=True)
class MemberFolder:
    """Paths in ``RUN/members/NN-name/``."""

    path: Path

    record = _File("member.json")
    """Settings, state and scores."""
    weights = _File("weights.safetensors")
    """Weights of the best epoch."""
    last = _File("last.ckpt")
    """Weights of the last epoch with the optimizer state, for resuming."""
    previous = _File("previous.ckpt")
    """The checkpoint before ``last.ckpt``, for resuming if that is damaged."""
    metrics = _File("metrics.csv")
    """One row per epoch."""
    predictions = _File("val_predictions.npy")
    """Activated maps of the validation images, fp16 ``(N, K, h, w)``."""
    snapshots = _File("snapshots")
    """Folder of weights from the second half of the training."""
    plots = _File("plots")
    """Folder of plots."""

    @property
    def checkpoints(self) -> tuple[Path, Path]:
        """The files from which an interrupted training resumes, the newer one first."""
        return self.last, self.previous

    def snapshot(self, epoch: int) -> Path:
        """Weights at the end of an epoch, counted from 1."""
        return self.snapshots / f"{epoch}.safetensors"


@dataclass(frozen=True)
class VariantFolder:
    """Paths in ``RUN/variants/LABEL/``."""

    path: Path

    record = _File("variant.json")
    """Description and scores; written last."""
    weights = _File("weights.safetensors")
    """Weights of the variant, if they differ from those of a member."""
    predictions = _File("val_predictions.npy")
    """Activated maps of the validation images, fp16 ``(N, K, h, w)``."""


@dataclass(frozen=True)
class RunFolder:
    """Paths in ``RUN/``."""

    path: Path

    config = _File("run.yaml")
    """Configuration of the training."""
    state = _File("run.json")
    """Data, task, and names of the validation images."""
    data_report = _File("data_report.json")
    """Layout of the data, and number of images in each split."""
    digests = _File("data_digests.json")
    """Digests of the pairs that members were trained and scored on."""
    data = _File("data")
    """Pairs of a torch data set that was trained on."""
    cache = _File("cache")
    """Folder of decoded and resized images and targets."""
    variants = _File("variants")
    """Folder of variants of trained members."""
    ensemble = _File("ensemble.json")
    """The last selection."""
    artifact = _File("ensemble.safetensors")
    """The ensemble at the end of the training."""
    analysis = _File("analysis.json")
    """Candidates and evaluation of the last selection."""
    report = _File("report.html")
    """The analysis as a page."""
    leaderboard = _File("leaderboard.csv")
    """Scores of the members."""
    milliseconds = _File("milliseconds.json")
    """Time per image of each candidate, measured on one machine."""
    baselines = _File("baselines.json")
    """Scores of predictions that need no training."""
    mean_map = _File("mean_map.npy")
    """Mean of the training targets, float32 ``(K, h, w)``, used by the baselines."""

    def member(self, number: int, name: str) -> MemberFolder:
        """Folder of the member with this number (from 0) and name."""
        return MemberFolder(self.path / "members" / f"{number + 1:02d}-{name}")

    def variant(self, label: str) -> VariantFolder:
        """Folder of the variant with this label."""
        return VariantFolder(self.variants / label)


def require_new(run: RunFolder, resume: bool) -> None:
    """Check that a folder holds no run, unless it is resumed.

    Raises:
        UsageError: it holds one.
    """
    if run.config.exists() and not resume:
        raise UsageError(f"'{run.path}' holds a run; continue it with --resume, or choose another folder with -o")
