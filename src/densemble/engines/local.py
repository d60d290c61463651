"""Local engine: trains the members of a run one after another, independently, on this machine."""

import json
import logging
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from densemble.config import RunConfig, TrainerConfig, make_config, read_config
from densemble.data.decoded_cache import DecodedSplit, decode_split
from densemble.data.digests import data_digests
from densemble.data.folder import FolderData
from densemble.engines.budget import Budget
from densemble.engines.data_check import describe_changes, require_sound
from densemble.engines.isolated_members import crashed_last, train_isolated
from densemble.engines.leftovers import forget_training
from densemble.engines.member import Outcome, Training
from densemble.engines.plan import member_cut, sizes, trained_task
from densemble.engines.timed import train_within
from densemble.errors import ResourceError, UsageError, WeightsError
from densemble.evaluation.scores import score_baselines
from densemble.nets.backbones import require_weights
from densemble.nets.heads import require_head
from densemble.progress.phases import phase, track
from densemble.storage.folder_lock import folder_lock
from densemble.storage.run_records import member_state, read_baselines, read_state
from densemble.storage.runs import RunFolder, require_new
from densemble.storage.writing import append_line, require_writable, write_json, write_text
from densemble.tasks import make_task
from densemble.tasks.losses.mixture import loss_names
from densemble.tasks.losses.user_loss import require_user_loss
from densemble.training.soft_targets import SoftTargets
from densemble.training.user_callbacks import NO_CALLBACKS, UserCallbacks
from densemble.user_code import is_user_function
from densemble.versions import installed_versions

log = logging.getLogger(__name__)


def train_members(
    data: FolderData,
    config: RunConfig,
    out: Path,
    resume: bool = False,
    budget: Budget | None = None,
    teach: Callable[[Training, DecodedSplit], SoftTargets] | None = None,
    callbacks: UserCallbacks = NO_CALLBACKS,
) -> list[Outcome]:
    """Train all members of a run, one by one; a member that fails in training does not stop the others.

    The pretrained weights of all members are read before the first training: if some cannot be read or downloaded,
    nothing is trained.

    Args:
        data: images and targets.
        config: configuration of the run.
        out: run folder; must be new unless ``resume``.
        resume: keep finished members and continue an interrupted member from its last epoch.
        budget: time limit; members that do not fit into it are left out, see :func:`train_within`.
        teach: makes soft targets for the decoded training images; default: the members learn from the targets alone.
        callbacks: callbacks of the user.

    Raises:
        UsageError: the folder holds a run with other settings or data, or a member has an unknown name.
        DataError: unusable images or targets.
        ResourceError: the folder cannot be written.
        WeightsError: the weights of a member cannot be read or downloaded.
    """
    run = RunFolder(out)
    macs = _check_members(config)
    _require_same_settings(run, config, resume)
    require_writable(run.path)
    digests = data_digests(data)
    _require_same_data(run, config, digests)
    if run.state.is_file():  # earlier members were trained with these class numbers
        data = data.numbered_as(make_task(read_state(run)["task"]))
    require_sound(data)
    _require_weights(run, config)
    _open_run(run, data, config, digests)
    train = _decode_all(Training(data, data.task, config, run))
    training = Training(data, trained_task(data.task, config, train), config, run, callbacks=callbacks)
    _report_ignored(training, train)
    state = {"data": str(data.path.resolve()), "task": training.task.describe(), "val": [s.stem for s in data.val]}
    write_json(run.state, state)
    _keep_baselines(training, train)
    indices = range(len(config.members))
    pending = [index for index in indices if member_state(training.folder(index)) != "done"]
    outcomes = {index: Outcome(training.name(index), "kept") for index in indices if index not in pending}
    if teach is not None and pending:
        training = replace(training, soft=teach(training, train))
    for outcome in outcomes.values():
        log.info(f"{outcome.name}: already trained, kept")

    def record(index: int, outcome: Outcome) -> None:
        outcomes[index] = outcome
        _append_event(run, {"member": outcome.name, "state": outcome.state, "error": outcome.error})

    if budget is not None and budget.seconds is not None:
        train_within(budget, training, {index: macs[index] for index in pending}, len(outcomes), record)
    else:
        with phase("training", len(indices), steps=True, costs=_costs(training, macs)) as members:
            for index in crashed_last(training, pending):
                members.start(index, training.name(index))
                record(index, train_isolated(training, index))
    return [outcomes[index] for index in indices]


def _costs(training: Training, macs: Sequence[float]) -> list[float]:
    """Return the relative duration of the training of each member."""
    config = training.config
    return [
        cost * config.members[index].training(config.training).epochs
        * (0.0 if member_state(training.folder(index)) == "done" else 1.0)
        for index, cost in enumerate(macs)
    ]  # fmt: skip


def _check_members(config: RunConfig) -> list[float]:
    """Check names and cuts of all members before any of them is trained.

    Returns:
        Multiply-accumulates of each member up to its cut.
    """
    if config.weights_dir is not None and not Path(config.weights_dir).expanduser().is_dir():
        raise ResourceError(f"weights_dir '{config.weights_dir}' is no folder; create it or leave it out")
    for loss in filter(is_user_function, loss_names(config.loss)):
        require_user_loss(loss)
    macs = []
    for member in track(config.members, "choosing cuts", len(config.members), "members"):
        if member.head is not None:
            require_head(member.head)
        macs.append(float(member_cut(config, member).macs))
    return macs


def _require_weights(run: RunFolder, config: RunConfig) -> None:
    """Check that the weights of all members that are not trained yet can be read; downloads stay in their cache.

    Raises:
        WeightsError: those of a member cannot.
    """
    names = config.member_names()
    indices: dict[tuple[str, str | None], int] = {}  # copies share one file
    for index, member in enumerate(config.members):
        if member_state(run.member(index, names[index])) != "done":
            indices.setdefault((member.backbone, member.weights), index)
    for (backbone, weights), index in track(indices.items(), "checking weights", len(indices), "files"):
        try:
            require_weights(backbone, weights, config.weights_dir)
        except WeightsError as error:
            remedy = str(error).replace("members.0.weights", f"members.{index}.weights")  # networks have no index
            raise WeightsError(f"{names[index]}: {remedy}; stopped before any training") from error


def _require_same_settings(run: RunFolder, config: RunConfig, resume: bool) -> None:
    """Check that the folder is new, or holds a run with the same settings to resume.

    Raises:
        UsageError: it holds another run.
    """
    require_new(run, resume)
    stored = make_config(read_config(run.config), str(run.config)) if run.config.exists() else config
    if _decisive_settings(stored) != _decisive_settings(config):
        raise UsageError(
            f"'{run.config}' differs from the settings given now; resume without --config, --set and --members, "
            "or choose another folder with -o"
        )


def forget_changed(data: FolderData, config: RunConfig, out: Path) -> None:
    """Remove the members of a run, and everything derived from them, if the data has changed.

    Raises:
        UsageError: the folder holds a run with other settings.
        DataError: the data has errors; nothing is removed.
    """
    run = RunFolder(out)
    with folder_lock(out):
        _require_same_settings(run, config, resume=True)
        changed = describe_changes(run, data_digests(data))
        if changed:
            require_sound(data)
            log.info(f"trained from the start: {changed}")
            forget_training(run)


def _require_same_data(run: RunFolder, config: RunConfig, digests: dict[str, dict[str, str]]) -> None:
    """Check that no member was trained on other data.

    Raises:
        UsageError: a member was.
    """
    folders = [run.member(index, name) for index, name in enumerate(config.member_names())]
    is_begun = any(
        member_state(folder) == "done" or any(file.is_file() for file in folder.checkpoints) for folder in folders
    )
    if is_begun and not run.digests.is_file():
        log.warning(
            f"warning: '{run.path}' has no digests of its data; its members are kept as if the data were the same"
        )
    changed = describe_changes(run, digests)
    if changed and is_begun:
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
        "versions": installed_versions(*packages),
    }
    write_json(run.path / "env.json", environment)
    splits = {name: len(samples) for name, samples in data.layout.splits.items()}
    unpaired = [str(file) for file in data.layout.unpaired]
    layout = {"layout": data.layout.name, "split_by": data.layout.split_by}
    write_json(run.data_report, {"splits": splits, **layout, "left_out": unpaired})


def _decisive_settings(config: RunConfig) -> str:
    """Return the settings that decide the result, without those of the machine, as YAML."""
    deterministic = config.trainer.deterministic
    machine = {"weights_dir": None, "trainer": TrainerConfig(deterministic=deterministic)}
    return config.model_copy(update=machine).to_yaml()


def _append_event(run: RunFolder, values: dict[str, Any]) -> None:
    try:
        append_line(run.path / "events.jsonl", json.dumps({"time": time.time(), **values}))
    except ResourceError as error:  # the record of the member tells the same
        log.warning(f"warning: {error}")


def _decode_all(training: Training) -> DecodedSplit:
    """Decode the data at every image size of the members, so that errors in it appear before any training.

    Returns:
        The training split at the image size of the first member.
    """
    started = time.monotonic()
    data, config = training.data, training.config
    first = sizes(config, config.members[0]).image
    decoded = {
        (size, split): decode_split(data, split, size, training.cache)
        for size in sorted({sizes(config, member).image for member in config.members})
        for split in ("train", "val")
    }
    log.info(f"{len(data.train)} + {len(data.val)} images decoded in {time.monotonic() - started:.1f} s")
    return decoded[first, "train"]


def _report_ignored(training: Training, train: DecodedSplit) -> None:
    """Log the ignored label and its share of the training pixels."""
    if training.task.target_kind not in ("labels", "masks"):
        return
    label, pixels = int(training.task.fill), 0
    for target in train.targets:
        pixels += int((target == label).sum())
    log.info(f"label {label} is ignored: {pixels / max(train.targets.size, 1):.1%} of the training pixels")


def _keep_baselines(training: Training, train: DecodedSplit) -> None:
    if not read_baselines(training.run):
        target_size = sizes(training.config, training.config.members[0]).target
        write_json(training.run.baselines, score_baselines(training.task, training.data, train, target_size))
