"""The local engine: members are trained one after the other on this machine, independently of each other."""

import json
import logging
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from densemble.config import RunConfig, TrainerConfig, make_config, read_config
from densemble.data.decoded_cache import DecodedSplit, decode_split
from densemble.data.digests import data_digests
from densemble.data.folder import FolderData
from densemble.engines.budget import Budget
from densemble.engines.data_check import require_sound, what_changed
from densemble.engines.leftovers import forget_training
from densemble.engines.member import Outcome, Training, train_member
from densemble.engines.plan import member_cut, sizes, trained_task
from densemble.engines.timed import train_within
from densemble.errors import ResourceError, UsageError
from densemble.evaluation.scores import score_baselines
from densemble.nets.heads import require_head
from densemble.storage.runs import MemberFolder, RunFolder, read_json, require_writable, write_json, write_text
from densemble.tasks import make_task

log = logging.getLogger(__name__)


def train_members(
    data: FolderData, config: RunConfig, out: Path, resume: bool = False, budget: Budget | None = None
) -> list[Outcome]:
    """Trains all members of a run, one by one; one that fails does not stop the others.

    Args:
        data: images and targets.
        config: the run.
        out: run folder; must be new unless ``resume``.
        resume: finished members are kept, a member that was cut off goes on from its last epoch.
        budget: time limit; members that it is not enough for are left out, see :func:`train_within`.

    Raises:
        UsageError: the folder holds another run or one of other data, or a member is named wrongly.
        DataError: images or targets that cannot be used.
        ResourceError: the folder cannot be written.
    """
    run = RunFolder(out)
    macs = _check_members(config)
    _require_same_settings(run, config, resume)
    require_writable(run.path)
    digests = data_digests(data)
    _require_same_data(run, config, digests)
    if run.state.is_file():  # members of an earlier start were trained on its class numbers
        data = data.numbered_as(make_task(read_json(run.state)["task"]))
    require_sound(data)
    _open_run(run, data, config, digests)
    train = _decode_all(Training(data, data.task, config, run))
    training = Training(data, trained_task(data.task, config, train), config, run)
    _report_ignored(training, train)
    _write_state(training)
    _keep_baselines(training, train)
    todo = [number for number in range(len(config.members)) if not _is_done(training.folder(number))]
    outcomes = {n: Outcome(training.name(n), "kept") for n in range(len(config.members)) if n not in todo}
    for outcome in outcomes.values():
        log.info(f"{outcome.name}: already trained, kept")

    def record(number: int, outcome: Outcome) -> None:
        outcomes[number] = outcome
        _event(run, {"member": outcome.name, "state": outcome.state, "error": outcome.error})

    if budget is not None and budget.limited:
        train_within(budget, training, {number: macs[number] for number in todo}, len(outcomes), record)
    else:
        for number in todo:
            record(number, train_member(training, number))
    return [outcomes[number] for number in range(len(config.members))]


def _check_members(config: RunConfig) -> list[float]:
    """Finds misspelt names and impossible cuts of all members before any of them is trained.

    Returns:
        Multiply-accumulates of each member up to its cut.
    """
    if config.weights_dir is not None and not Path(config.weights_dir).expanduser().is_dir():
        raise ResourceError(f"weights_dir '{config.weights_dir}' is no folder; create it or leave it out")
    costs = []
    for member in config.members:
        if member.head is not None:
            require_head(member.head)
        costs.append(float(member_cut(config, member).macs))
    return costs


def _require_same_settings(run: RunFolder, config: RunConfig, resume: bool) -> None:
    """Checks that the folder is free, or holds what is gone on with.

    Raises:
        UsageError: it holds another run.
    """
    if run.config.exists() and not resume:
        raise UsageError(f"'{run.path}' holds a run already; go on with --resume, or choose another folder with -o")
    stored = make_config(read_config(run.config), str(run.config)) if run.config.exists() else config
    if _trained_by(stored) != _trained_by(config):
        raise UsageError(
            f"'{run.config}' differs from the settings given now; resume without --config, --set and --members, "
            "or choose another folder with -o"
        )


def forget_changed(data: FolderData, config: RunConfig, out: Path) -> None:
    """Makes a run of other data a new one: removes its members and all that was made of them.

    Raises:
        UsageError: the folder holds a run of other settings.
        DataError: the data cannot be trained on; nothing is removed.
    """
    run = RunFolder(out)
    _require_same_settings(run, config, resume=True)
    changed = what_changed(run.digests, data_digests(data))
    if changed:
        require_sound(data)
        log.info(f"trained from the start: {changed}")
        forget_training(run)


def _require_same_data(run: RunFolder, config: RunConfig, digests: dict[str, dict[str, str]]) -> None:
    """Checks that no member was trained on other data.

    Raises:
        UsageError: one was.
    """
    folders = [run.member(number, name) for number, name in enumerate(config.member_names())]
    begun = any(_is_done(folder) or folder.last.is_file() for folder in folders)
    if begun and not run.digests.is_file():
        log.warning(
            f"warning: '{run.path}' does not say what its data held; its members are kept as if it were the same"
        )
    changed = what_changed(run.digests, digests)
    if changed and begun:
        raise UsageError(
            f"{changed}; put it back, train all members again with --resume --retrain, or choose another folder with -o"
        )
    if changed:
        forget_training(run)


def _open_run(run: RunFolder, data: FolderData, config: RunConfig, digests: dict[str, dict[str, str]]) -> None:
    write_text(run.config, config.to_yaml())
    write_json(run.digests, digests)
    packages = ("densemble", "torch", "torchvision", "timm", "lightning", "numpy")
    environment = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": {name: version(name) for name in packages},
    }
    write_json(run.path / "env.json", environment)
    splits = {name: len(samples) for name, samples in data.layout.splits.items()}
    unpaired = [str(file) for file in data.layout.unpaired]
    layout = {"layout": data.layout.name, "split_by": data.layout.split_by}
    write_json(run.path / "data_report.json", {"splits": splits, **layout, "left_out": unpaired})


def _trained_by(config: RunConfig) -> str:
    """The settings that decide what comes out, in their order; what the machine is like is none of them."""
    deterministic = config.trainer.deterministic
    machine = {"weights_dir": None, "trainer": TrainerConfig(deterministic=deterministic)}
    return config.model_copy(update=machine).to_yaml()


def _event(run: RunFolder, values: dict[str, Any]) -> None:
    with (run.path / "events.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"time": time.time(), **values}) + "\n")


def _is_done(folder: MemberFolder) -> bool:
    return folder.record.is_file() and read_json(folder.record).get("state") == "done"


def _decode_all(training: Training) -> DecodedSplit:
    """Decodes for every size that occurs: what is wrong with the data shows before hours are spent.

    Returns:
        The training split in the size of the first member.
    """
    started = time.monotonic()
    data, config = training.data, training.config
    first = sizes(config, config.members[0])[0]
    decoded = {
        (size, split): decode_split(data, split, size, training.cache)
        for size in sorted({sizes(config, member)[0] for member in config.members})
        for split in ("train", "val")
    }
    log.info(f"{len(data.train)} + {len(data.val)} images decoded in {time.monotonic() - started:.1f} s")
    return decoded[first, "train"]


def _report_ignored(training: Training, train: DecodedSplit) -> None:
    """Says which label is ignored, and how much of the training maps that is."""
    if training.task.target_kind not in ("labels", "masks"):
        return
    label, pixels = int(training.task.fill), 0
    for target in train.targets:
        pixels += int((target == label).sum())
    log.info(f"label {label} is ignored: {pixels / max(train.targets.size, 1):.1%} of the training pixels")


def _write_state(training: Training) -> None:
    data, task = training.data, training.task
    state = {"data": str(data.path.resolve()), "task": task.describe(), "val": [s.stem for s in data.val]}
    write_json(training.run.state, state)


def _keep_baselines(training: Training, train: DecodedSplit) -> None:
    if not training.run.baselines.is_file():
        target_size = sizes(training.config, training.config.members[0])[1]
        write_json(training.run.baselines, score_baselines(training.task, training.data, train, target_size))
