"""Training on several devices, here processes on the CPU."""

import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_run import SMALL_RUN
from torch.multiprocessing import ProcessRaisedException

from densemble.config import TrainerConfig, make_config
from densemble.data.folder import FolderData
from densemble.engines.isolation.calls import is_supported
from densemble.engines.local import train_members
from densemble.errors import DivergedError, UsageError
from densemble.storage.runs import MemberFolder
from densemble.training.callbacks import EpochRecord, LiveProgress, read_rows
from densemble.training.fit import _raised_in_process, _strategy, is_out_of_memory
from densemble.training.settings import FitSettings


@pytest.mark.slow
@pytest.mark.skipif(not is_supported(), reason="processes are forked on Linux only")
def test_two_devices_in_the_process_of_a_member(scenes: Path, tmp_path: Path) -> None:
    outcome = train(scenes, tmp_path / "run", accelerator="cpu", devices=2, isolated=True)
    assert outcome.state == "done", outcome.error


def train(scenes: Path, out: Path, **trainer: Any) -> Any:
    values = {**SMALL_RUN, "members": [{"backbone": "resdeconv", "averaging": "ema"}], "trainer": trainer}
    (outcome,) = train_members(FolderData(scenes, "saliency"), make_config(values), out)
    return outcome


@pytest.mark.slow
def test_two_devices_train_a_complete_member(scenes: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    outcome = train(scenes, tmp_path / "run", accelerator="cpu", devices=2)
    assert outcome.state == "done", outcome.error
    folder = tmp_path / "run" / "members" / "01-resdeconv"
    record, rows = json.loads((folder / "member.json").read_text()), read_rows(folder / "metrics.csv")
    assert [row["epoch"] for row in rows] == [1, 2] and record["epochs"] == 2
    last = torch.load(folder / "last.ckpt", weights_only=True)
    assert last["global_step"] == 2 * 2, "each process has 12 of 24 images, in batches of 8"
    assert {f"model.{name}" for name in load_file(folder / "weights.safetensors")} == set(last["state_dict"])
    assert np.load(folder / "val_predictions.npy").shape == (8, 1, 12, 16)
    assert (folder / "plots" / "curves.png").is_file()
    assert capfd.readouterr().err.count("epoch 2/2") == 1, "only one process prints"


def test_callbacks_can_be_sent_to_another_process(tmp_path: Path) -> None:
    sent = (LiveProgress("net"), EpochRecord(MemberFolder(tmp_path)))
    progress, record = pickle.loads(pickle.dumps(sent))
    assert progress.title == "net" and record.folder.path == tmp_path
    progress.batches.advance()
    assert progress.batches.done == 1


@pytest.mark.parametrize(
    ("trainer", "message"), [({"accelerator": "abacus"}, "abacus"), ({"accelerator": "cpu", "devices": 0}, "devices")]
)
def test_absent_devices(scenes: Path, tmp_path: Path, trainer: dict[str, Any], message: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcome = train(scenes, tmp_path / "run", **trainer)
    assert isinstance(outcome.cause, UsageError) and "check accelerator, devices or strategy" in outcome.error
    assert message in outcome.error


def raised(line: str) -> ProcessRaisedException:
    text = f"\n\n-- Process 1 terminated with the following error:\nTraceback (most recent call last):\n  ...\n{line}\n"
    return ProcessRaisedException(text, 1, 4711)


def test_an_error_of_a_training_process_keeps_its_type() -> None:
    diverged = _raised_in_process(raised("densemble.errors.DivergedError: a: the loss became nan; lower it"))
    assert isinstance(diverged, DivergedError) and str(diverged) == "a: the loss became nan; lower it"
    memory = _raised_in_process(raised("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"))
    other = _raised_in_process(raised("ValueError: no such thing"))
    assert is_out_of_memory(memory) and not is_out_of_memory(other)
    assert isinstance(other, RuntimeError) and str(other) == "ValueError: no such thing"


@pytest.mark.parametrize(
    ("devices", "nodes", "strategy", "frozen", "expected"),
    [
        (1, 1, "auto", 0, "auto"),
        ("1", 1, "auto", 0, "auto"),
        ([1], 1, "auto", 0, "auto"),
        (2, 1, "auto", 0, "ddp_spawn"),
        ([0, 1], 1, "auto", 0, "ddp_spawn"),
        (2, 1, "auto", 1, "ddp_spawn_find_unused_parameters_true"),
        (2, 1, "ddp", 1, "ddp"),
        (2, 2, "auto", 0, "auto"),
    ],
)
def test_strategies(devices: Any, nodes: int, strategy: str, frozen: int, expected: str) -> None:
    machine = TrainerConfig(devices=devices, num_nodes=nodes, strategy=strategy)
    settings = FitSettings(backbone_share=1.0, freeze_epochs=frozen, machine=machine)
    assert _strategy(settings) == expected
