"""A resumed training is bit-identical to an undisturbed one; damaged checkpoints; what a checkpoint may hold."""

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from sampled import sampled
from small_networks import stage
from small_training import SETTINGS, member_folder, replace
from torch import Tensor, nn

from densemble.data.decoded_cache import DecodedSplit
from densemble.errors import Terminated
from densemble.nets.dense import DenseModel
from densemble.storage.runs import MemberFolder
from densemble.tasks import SaliencyTask
from densemble.training.callbacks import read_rows
from densemble.training.checkpoints import find_start, position, read_checkpoint
from densemble.training.fit import fit_member, seed_everything
from densemble.training.settings import MemberFit

SPLITS = tuple[DecodedSplit, DecodedSplit]
EPOCHS = replace(SETTINGS, epochs=3, learning_rate=1e-2)
Train = Callable[..., dict[str, Any]]


class StochasticDepth(nn.Module):
    """Residual branch with dropout, left out at random for each image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1), nn.Dropout(0.5))
        self.kept = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.kept(torch.ones_like(x[:, :1, :1, :1])) * self.branch(x)


class NoisyTask(SaliencyTask):
    """Its loss draws numbers from Python and NumPy."""

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return super().loss(logits, target) * (1 + random.random() + np.random.rand())


class Random(nn.Module):
    """Classifier with dropout and stochastic depth."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.Sequential(stage(3, 8), StochasticDepth(8), stage(8, 16), stage(16, 16), stage(16, 32))
        self.classifier = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.classifier(self.stages(x).mean((2, 3)))
        return scores


class Terminator(Callback):
    """Sends SIGTERM to this process in an epoch (from 0), before one of its batches or in its validation."""

    def __init__(self, epoch: int, batch: int | None) -> None:
        self.epoch = epoch
        self.batch = batch

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, index: int) -> None:
        if (trainer.current_epoch, index) == (self.epoch, self.batch):
            os.kill(os.getpid(), signal.SIGTERM)

    def on_validation_batch_start(self, trainer: Any, *_: Any) -> None:
        if trainer.current_epoch == self.epoch and self.batch is None:
            os.kill(os.getpid(), signal.SIGTERM)


class Killer(Callback):
    """Ends a training like SIGKILL, without another checkpoint, at the start of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == self.epoch:
            raise InterruptedError


@pytest.fixture
def train(splits: SPLITS) -> Train:
    def run(path: Path, settings: Any = EPOCHS, *callbacks: Callback, task: Any = None) -> dict[str, Any]:
        folder = member_folder(path)
        folder.path.mkdir(parents=True, exist_ok=True)
        seed_everything(0)
        model = DenseModel(Random(), out_size=(12, 16), input_size=(48, 64), head="upsample", weights=None)
        fit = MemberFit(model, task or NoisyTask(), settings, *splits, (12, 16), folder, "small", path / "cache")
        return fit_member(fit, callbacks)

    return run


def require_identical(run: Path, expected: Path) -> None:
    """Compare the weights, optimizer, random states and metrics after the last epoch, and the best weights."""
    one, two = (read_checkpoint(member_folder(path).last) for path in (run, expected))
    for key in ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers"):
        require_equal(one.get(key), two.get(key), key)
    require_equal(one["densemble"], two["densemble"], "densemble")
    rows = [
        [{key: value for key, value in row.items() if key not in ("seconds", "data_share")} for row in read_rows(file)]
        for file in (member_folder(run).metrics, member_folder(expected).metrics)
    ]
    assert rows[0] == rows[1]
    assert member_folder(run).weights.read_bytes() == member_folder(expected).weights.read_bytes()


def require_equal(one: Any, two: Any, where: str) -> None:
    if isinstance(two, Tensor):
        assert torch.equal(one, two), where
    elif isinstance(two, dict):
        assert one.keys() == two.keys(), where
        for key, value in two.items():
            require_equal(one[key], value, f"{where}.{key}")
    elif isinstance(two, list | tuple):
        assert len(one) == len(two), where
        for number, (a, b) in enumerate(zip(one, two, strict=True)):
            require_equal(a, b, f"{where}[{number}]")
    else:
        assert one == two, where


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("undisturbed")


OPTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "ema": {"averaging": "ema"},
    "swa": {"averaging": "swa"},
    "patience": {"patience": 1},
    "frozen": {"freeze_epochs": 2, "snapshots": 2},
    "range test": {"learning_rate": "auto", "epochs": 2},
}
ENDINGS: dict[str, Callback] = {
    "between epochs": Killer(1),
    "first batch": Terminator(0, 0),
    "in an epoch": Terminator(1, 1),
    "last batch": Terminator(1, 2),
    "in a validation": Terminator(1, None),
}
ALL = [(option, ending) for option in OPTIONS for ending in ENDINGS]
FEW = [("ema", "last batch"), ("swa", "in a validation"), ("patience", "between epochs")]


@pytest.mark.parametrize(("option", "ending"), sampled(ALL, FEW))
def test_a_resumed_training_is_identical(
    train: Train, undisturbed: Path, tmp_path: Path, option: str, ending: str
) -> None:
    settings = replace(EPOCHS, **OPTIONS[option])
    whole = undisturbed / option
    if not whole.is_dir():
        train(whole, settings)
    stop = ENDINGS[ending]
    with pytest.raises((Terminated, InterruptedError)):
        train(tmp_path, settings, stop)
    epoch, batches = position(read_checkpoint(member_folder(tmp_path).last))
    within = {"first batch": (0, 1), "in an epoch": (1, 2), "last batch": (1, 3), "in a validation": (1, 3)}
    assert (epoch, batches) == within.get(ending, (1, 0))
    train(tmp_path, settings)
    require_identical(tmp_path, whole)


def test_an_epoch_that_is_interrupted_twice(train: Train, undisturbed: Path, tmp_path: Path) -> None:
    whole = undisturbed / "none"
    if not whole.is_dir():
        train(whole)
    for batch in (0, 1):
        with pytest.raises(Terminated):
            train(tmp_path, EPOCHS, Terminator(1, batch))
        folder = member_folder(tmp_path)
        assert position(read_checkpoint(folder.previous)) == (1, 0), "the end of the last epoch is kept"
    train(tmp_path)
    require_identical(tmp_path, whole)


def test_a_training_that_ended_early_does_not_go_on(train: Train, tmp_path: Path) -> None:
    """The process is killed after the last epoch, before the validation images are predicted."""
    settings = replace(EPOCHS, epochs=30, patience=1, learning_rate=1e-6)
    ended = train(tmp_path, settings)["epochs"]
    assert ended < 30 and train(tmp_path, settings)["epochs"] == ended


# --- damaged checkpoints ---------------------------------------------------------------------------------------------


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def zeros(content: bytes) -> bytes:
    return bytes(len(content))


def half_zeros(content: bytes) -> bytes:
    return content[: len(content) // 2] + bytes(len(content) - len(content) // 2)


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def empty(content: bytes) -> bytes:
    return b""


def text(content: bytes) -> bytes:
    return b"no checkpoint"


TWO_EPOCHS = replace(EPOCHS, epochs=2, batch_size=24)


def train_twice(train: Train, undisturbed: Path, tmp_path: Path) -> tuple[Path, MemberFolder]:
    """Train two epochs; return the folder of an undisturbed training and the member folder of this one."""
    whole = undisturbed / "two"
    if not whole.is_dir():
        train(whole, TWO_EPOCHS)
    train(tmp_path, TWO_EPOCHS)
    return whole, member_folder(tmp_path)


@pytest.mark.parametrize("damage", sampled([truncated, zeros, half_zeros, flipped, empty, text], [truncated, flipped]))
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    train: Train, undisturbed: Path, tmp_path: Path, damage: Callable[[bytes], bytes], lines: list[str]
) -> None:
    whole, folder = train_twice(train, undisturbed, tmp_path)
    folder.last.write_bytes(damage(folder.last.read_bytes()))
    train(tmp_path, TWO_EPOCHS)
    assert lines == ["small: last.ckpt is damaged; continuing from previous.ckpt"]
    require_identical(tmp_path, whole)


def test_without_an_undamaged_checkpoint_the_training_starts_again(
    train: Train, undisturbed: Path, tmp_path: Path, lines: list[str]
) -> None:
    whole, folder = train_twice(train, undisturbed, tmp_path)
    for file in (folder.last, folder.previous):
        file.write_bytes(flipped(file.read_bytes()))
    train(tmp_path, TWO_EPOCHS)
    assert lines == ["small: last.ckpt and previous.ckpt are damaged; training from the beginning"]
    require_identical(tmp_path, whole)


def test_every_flipped_byte_is_noticed_or_changes_nothing(train: Train, tmp_path: Path) -> None:
    train(tmp_path, replace(EPOCHS, epochs=1))
    folder = MemberFolder(tmp_path / "copy")
    folder.path.mkdir()
    content, expected = member_folder(tmp_path).last.read_bytes(), read_checkpoint(member_folder(tmp_path).last)
    draw, noticed = random.Random(0), 0
    for _ in range(60):
        place = draw.randrange(len(content))
        folder.last.write_bytes(
            content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]
        )
        try:
            require_equal(read_checkpoint(folder.last), expected, "checkpoint")
        except ValueError:
            noticed += 1
    assert noticed > 30


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("canary",)


def test_a_checkpoint_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]) -> None:
    monkeypatch.chdir(tmp_path)
    folder = MemberFolder(tmp_path)
    for file in (folder.last, folder.previous):
        torch.save({"state_dict": Payload(), "loops": {}}, file)
    assert find_start(folder, "small").file is None and lines and not (tmp_path / "canary").exists()
