"""Members trained in separate processes: the same results and messages, and what prevents it."""

import json
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import Callback
from small_networks import SMALL
from small_run import SMALL_RUN

from densemble.config import RunConfig, make_config
from densemble.data.folder import FolderData
from densemble.engines.budget import Budget
from densemble.engines.isolated_members import crashed_last
from densemble.engines.isolation.calls import is_supported
from densemble.engines.local import train_members
from densemble.engines.member import Training
from densemble.storage.runs import RunFolder
from densemble.training.user_callbacks import UserCallbacks

pytestmark = [
    pytest.mark.xdist_group("isolated"),
    pytest.mark.skipif(not is_supported(), reason="processes are forked on Linux only"),
]


def config(isolated: bool | None, **member: Any) -> RunConfig:
    members = [{"backbone": SMALL, "weights": None, "name": "net", **member}]
    return make_config({**SMALL_RUN, "members": members, "trainer": {"isolated": isolated}})


def test_another_process_trains_the_same_member(
    scenes: Path, tmp_path: Path, lines: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    shown, logged = [], []
    for isolated in (True, False):
        (outcome,) = train_members(FolderData(scenes, "saliency"), config(isolated), tmp_path / str(isolated))
        assert (outcome.state, outcome.epochs) == ("done", 2)
        shown.append([line for line in capfd.readouterr().err.splitlines() if "epoch 2/2 loss" in line])
        logged.append([line.split(" in ")[0] for line in lines if line.startswith("net:")])
        lines.clear()
    assert len(shown[0]) == 1 and shown[0][0].split(" (")[0] == shown[1][0].split(" (")[0]
    assert logged[0] == logged[1] and logged[0][-1] == "net: done"
    folders = [tmp_path / name / "members" / "01-net" for name in ("True", "False")]
    for file in ("weights.safetensors", "val_predictions.npy"):
        assert (folders[0] / file).read_bytes() == (folders[1] / file).read_bytes()


@pytest.mark.slow
def test_loader_processes_of_another_process(scenes: Path, tmp_path: Path) -> None:
    values = config(True, epochs=1).model_dump()
    two = make_config({**values, "trainer": {"isolated": True, "workers": 2}})
    (outcome,) = train_members(FolderData(scenes, "saliency"), two, tmp_path / "run")
    assert outcome.state == "done", outcome.error


def test_members_with_a_time_limit_are_measured_in_other_processes(scenes: Path, tmp_path: Path) -> None:
    """Its head ends the process that measures it."""
    failing = {"backbone": SMALL, "weights": None, "name": "exits", "head": "failing_parts:Exit"}
    values = config(True).model_dump()
    both = make_config({**values, "members": [{"backbone": SMALL, "weights": None, "name": "net"}, failing]})
    data = FolderData(scenes, "saliency")
    good, bad = train_members(data, both, tmp_path / "run", budget=Budget(300.0))
    assert (good.state, bad.state) == ("done", "failed") and "exit code 3" in (bad.error or "")
    training = Training(data, data.task, both, RunFolder(tmp_path / "run"))
    assert crashed_last(training, [1, 0]) == [0, 1]
    record = json.loads((training.folder(1).record).read_text())
    assert record["crashed"] and record["name"] == "exits"


def test_objects_of_this_process_keep_the_training_here(scenes: Path, tmp_path: Path, lines: list[str]) -> None:
    class Counter(Callback):
        epochs = 0

        def on_train_epoch_end(self, *_: Any) -> None:
            self.epochs += 1

    counter = Counter()
    data = FolderData(scenes, "saliency")
    train_members(data, config(True, epochs=1), tmp_path / "run", callbacks=UserCallbacks.of([counter]))
    assert counter.epochs == 1
    assert "net: trained in this process: callbacks are objects of this process" in lines
