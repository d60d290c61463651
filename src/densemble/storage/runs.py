"""The run folder: where what lies, and files that are either old or new but never half."""

import json
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densemble.errors import ArtifactError, ResourceError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``; on success it is flushed to disk and takes ``path``'s place at once.

    Raises:
        ResourceError: the folder cannot be written or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise ResourceError(f"cannot write '{path}': {error.strerror or error}; choose another folder") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Writes a text file as a whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def strict(value: Any) -> Any:
    """The same with NaN and infinity as ``None``: strict JSON has neither."""
    if isinstance(value, dict):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, values: Any) -> None:
    """Writes strict JSON (no NaN) as a whole or not at all."""
    write_text(path, json.dumps(values, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        ArtifactError: absent or not a JSON object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"cannot read '{path}': {error}; is it a run folder of `densemble train`?") from error
    if not isinstance(values, dict):
        raise ArtifactError(f"'{path}' holds no JSON object; is it a run folder of `densemble train`?")
    return values


def require_writable(folder: Path) -> Path:
    """Makes ``folder`` and proves that files can be written there.

    Raises:
        ResourceError: they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ResourceError(
            f"cannot write into '{folder}': {error.strerror or error}; choose another folder or mend its permissions"
        ) from error
    return folder


@dataclass(frozen=True)
class MemberFolder:
    """``RUN/members/NN-name/``."""

    path: Path

    @property
    def record(self) -> Path:
        """``member.json``: settings, state, scores."""
        return self.path / "member.json"

    @property
    def weights(self) -> Path:
        """The best epoch's weights."""
        return self.path / "weights.safetensors"

    @property
    def last(self) -> Path:
        """The last epoch's weights with the optimizer's state, to go on from."""
        return self.path / "last.ckpt"

    @property
    def metrics(self) -> Path:
        """One row per epoch."""
        return self.path / "metrics.csv"

    @property
    def predictions(self) -> Path:
        """Activated maps of the validation images, fp16 ``(N, K, h, w)``."""
        return self.path / "val_predictions.npy"

    @property
    def snapshots(self) -> Path:
        """Folder of weights from the second half of the training."""
        return self.path / "snapshots"

    def snapshot(self, epoch: int) -> Path:
        """The weights that an epoch, counted from 1, ended with."""
        return self.snapshots / f"{epoch}.safetensors"

    @property
    def plots(self) -> Path:
        """Folder of images."""
        return self.path / "plots"


@dataclass(frozen=True)
class VariantFolder:
    """``RUN/variants/LABEL/``."""

    path: Path

    @property
    def record(self) -> Path:
        """``variant.json``: what it is, scores; written last."""
        return self.path / "variant.json"

    @property
    def weights(self) -> Path:
        """Weights of its own, where no member has them."""
        return self.path / "weights.safetensors"

    @property
    def predictions(self) -> Path:
        """Activated maps of the validation images, fp16 ``(N, K, h, w)``."""
        return self.path / "val_predictions.npy"


@dataclass(frozen=True)
class RunFolder:
    """``RUN/``: see the design for what lies in it."""

    path: Path

    def member(self, number: int, name: str) -> MemberFolder:
        """Folder of the member with this number (from 0) and name."""
        return MemberFolder(self.path / "members" / f"{number + 1:02d}-{name}")

    @property
    def variants(self) -> Path:
        """Folder of variants of trained members."""
        return self.path / "variants"

    def variant(self, label: str) -> VariantFolder:
        """Folder of the variant with this label."""
        return VariantFolder(self.variants / label)

    @property
    def config(self) -> Path:
        """``run.yaml``."""
        return self.path / "run.yaml"

    @property
    def ensemble(self) -> Path:
        """``ensemble.json``: the last selection."""
        return self.path / "ensemble.json"

    @property
    def analysis(self) -> Path:
        """``analysis.json``: what the last selection was made of, and what it is worth."""
        return self.path / "analysis.json"

    @property
    def report(self) -> Path:
        """``report.html``: the analysis as a page."""
        return self.path / "report.html"

    @property
    def milliseconds(self) -> Path:
        """``milliseconds.json``: how long each candidate takes for an image on one machine."""
        return self.path / "milliseconds.json"

    @property
    def leaderboard(self) -> Path:
        """``leaderboard.csv``."""
        return self.path / "leaderboard.csv"

    @property
    def baselines(self) -> Path:
        """``baselines.json``: scores of predictions that need no training."""
        return self.path / "baselines.json"

    @property
    def mean_map(self) -> Path:
        """``mean_map.npy``: mean of the training targets, float32 ``(K, h, w)``, which baselines are made of."""
        return self.path / "mean_map.npy"

    @property
    def artifact(self) -> Path:
        """``ensemble.safetensors``: the ensemble that the training ended with."""
        return self.path / "ensemble.safetensors"

    @property
    def state(self) -> Path:
        """``run.json``: data, task, and names of the validation images."""
        return self.path / "run.json"

    @property
    def digests(self) -> Path:
        """``data_digests.json``: what the pairs that members were trained and scored on held."""
        return self.path / "data_digests.json"

    @property
    def cache(self) -> Path:
        """Decoded and resized images and maps."""
        return self.path / "cache"
