"""The local engine: members are trained one after the other on this machine, each standing for itself."""

import json
import os
import platform
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from densemble.config import MemberConfig, RunConfig, make_config, read_config
from densemble.data.cache import decode_split
from densemble.data.folder import FolderData
from densemble.errors import DensembleError, UsageError
from densemble.evaluation import predict_split
from densemble.nets.backbones import OWN, resolve
from densemble.nets.choose import choose, limits
from densemble.nets.cuts import all_nodes
from densemble.nets.dense import DenseModel
from densemble.nets.heads import require_head
from densemble.nets.weights import read_state
from densemble.report.curves import draw_curves
from densemble.shapes import Size
from densemble.storage.runs import (
    MemberFolder,
    RunFolder,
    atomic_path,
    read_json,
    require_writable,
    write_json,
    write_text,
)
from densemble.training.callbacks import read_rows, scalars
from densemble.training.fit import bf16_is_fast, fit_member, seed_everything
from densemble.training.module import FitSettings

Report = Callable[[str], None]
BACKBONE_SHARE = 0.2


@dataclass(frozen=True)
class Outcome:
    """How one member ended: ``done``, ``kept`` (finished before) or ``failed`` with the reason."""

    name: str
    state: str
    error: str | None = None
    cause: BaseException | None = None


def train_members(
    data: FolderData,
    config: RunConfig,
    out: Path,
    resume: bool = False,
    seconds: float | None = None,
    report: Report = lambda line: None,
) -> list[Outcome]:
    """Trains all members of a run, one by one; one that fails does not stop the others.

    Args:
        data: pictures and maps.
        config: the run.
        out: run folder; must be new unless ``resume``.
        resume: finished members are kept, a member that was cut off goes on from its last epoch.
        seconds: shared among the members that are still to be trained.
        report: called with one line of text at every step.

    Raises:
        UsageError: the folder holds another run, or a member is named wrongly.
        DataError: pictures or maps that cannot be used.
        ResourceError: the folder cannot be written.
    """
    run = RunFolder(out)
    _check_members(config)
    _open_run(run, data, config, resume)
    started = time.monotonic()
    _decode_all(data, config, run, report)
    names = config.member_names()
    todo = [i for i, name in enumerate(names) if not _is_done(run.member(i, name))]
    outcomes: list[Outcome] = []
    for number, (name, member) in enumerate(zip(names, config.members, strict=True)):
        folder = run.member(number, name)
        if number not in todo:
            report(f"{name}: already trained, kept")
            outcomes.append(Outcome(name, "kept"))
            continue
        share = None
        if seconds is not None:
            left = sum(i >= number for i in todo)
            share = max(seconds - (time.monotonic() - started), 1.0) / left * (0.95 if left > 1 else 0.9)
        outcome = _train_one(data, config, member, name, folder, run, share, report)
        _event(run, {"member": name, "state": outcome.state, "error": outcome.error})
        outcomes.append(outcome)
    return outcomes


def _check_members(config: RunConfig) -> None:
    """Finds misspelt names and impossible cuts of all members before any of them is trained."""
    for member in config.members:
        backbone, _ = resolve(member.backbone, member.weights)
        if member.head is not None:
            require_head(member.head)
        size = member.input_size or config.input_size
        within = limits(size, config.out_size, member.min_size, member.max_stride, member.max_macs)
        choose(all_nodes(backbone, size), member.cut, within, backbone)


def _open_run(run: RunFolder, data: FolderData, config: RunConfig, resume: bool) -> None:
    if run.config.exists() and not resume:
        raise UsageError(f"'{run.path}' holds a run already; go on with --resume, or choose another folder with -o")
    require_writable(run.path)
    if run.config.exists() and _trained_by(make_config(read_config(run.config), str(run.config))) != _trained_by(
        config
    ):
        raise UsageError(
            f"'{run.config}' differs from the settings given now; resume without --config, --set and --members, "
            "or choose another folder with -o"
        )
    task = data.task.describe()
    write_text(run.config, config.to_yaml())
    write_json(run.state, {"data": str(data.path.resolve()), "task": task, "val": [s.stem for s in data.val]})
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
    write_json(
        run.path / "data_report.json", {"splits": splits, "split_by": data.layout.split_by, "left_out": unpaired}
    )


def _trained_by(config: RunConfig) -> RunConfig:
    """The settings that decide what comes out; where weights lie on this machine is none of them."""
    return config.model_copy(update={"weights_dir": None})


def _event(run: RunFolder, values: dict[str, Any]) -> None:
    with (run.path / "events.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"time": time.time(), **values}) + "\n")


def _is_done(folder: MemberFolder) -> bool:
    return folder.record.is_file() and read_json(folder.record).get("state") == "done"


def _sizes(config: RunConfig, member: MemberConfig) -> tuple[Size, Size, Size]:
    """Sizes of a member's pictures, of the maps it is trained on, and of the maps that are kept of it."""
    size = member.input_size or config.input_size
    return size, config.out_size or size, config.out_size or (max(size[0] // 2, 1), max(size[1] // 2, 1))


def _decode_all(data: FolderData, config: RunConfig, run: RunFolder, report: Report) -> None:
    """Decodes for every size that occurs: what is wrong with the data shows before hours are spent."""
    started = time.monotonic()
    for size, target_size in sorted({_sizes(config, member)[:2] for member in config.members}):
        for split in ("train", "val"):
            decode_split(data, split, size, target_size, run.cache)
    report(f"{len(data.train)} + {len(data.val)} pictures decoded in {time.monotonic() - started:.1f} s")


def _train_one(
    data: FolderData,
    config: RunConfig,
    member: MemberConfig,
    name: str,
    folder: MemberFolder,
    run: RunFolder,
    seconds: float | None,
    report: Report,
) -> Outcome:
    started = time.monotonic()
    record: dict[str, Any] = {"name": name, "config": member.model_dump(mode="json"), "state": "running"}
    try:
        require_writable(folder.path)
        write_json(folder.record, record)
        settings = _settings(config, member, seconds)
        seed_everything(settings.seed)
        size, target_size, map_size = _sizes(config, member)
        model = DenseModel(
            member.backbone,
            out_channels=data.task.out_channels,
            out_size=config.out_size,
            cut=member.cut,
            head=member.head,
            weights=member.weights,
            input_size=size,
            min_size=member.min_size,
            max_stride=member.max_stride,
            max_macs=member.max_macs,
            allow_partial=member.allow_partial,
            weights_dir=config.weights_dir,
        )
        cut = model.cut
        report(f"{name}: cut at {cut.node} ({cut.channels} x {cut.height}x{cut.width}), {model.loaded}")
        splits = [decode_split(data, split, size, target_size, run.cache) for split in ("train", "val")]
        fitted = fit_member(model, data.task, splits[0], splits[1], settings, folder, name, run.cache)
        model.load_state_dict(read_state(folder.weights))
        maps, scores = predict_split(model.float().eval(), data.task, data, "val", map_size)
        with atomic_path(folder.predictions) as temporary, temporary.open("wb") as file:
            np.save(file, maps)
        draw_curves(read_rows(folder.metrics), name, folder.plots / "curves.png")
        record |= {
            "state": "done",
            "spec": model.spec.as_dict(),
            "loaded": model.loaded,
            "parameters": sum(p.numel() for p in model.parameters()),
            "epochs": fitted["epochs"],
            "best_epoch": int(fitted["best"]["epoch"]),
            "seconds": round(time.monotonic() - started, 1),
            "val": scores,
        }
        write_json(folder.record, record)
    except (DensembleError, OSError, RuntimeError, ValueError, MemoryError) as error:
        return _failed(folder, record, name, error, report)
    shown = ", ".join(f"{key} {value:.4f}" for key, value in scalars(scores).items())
    report(f"{name}: done in {record['seconds']:.0f} s, val {shown}")
    return Outcome(name, "done")


def _failed(folder: MemberFolder, record: dict[str, Any], name: str, error: Exception, report: Report) -> Outcome:
    message = str(error) if isinstance(error, DensembleError) else f"{type(error).__name__}: {error}"
    report(f"{name}: FAILED: {message}")
    try:
        write_json(folder.record, {**record, "state": "failed", "error": message})
        if not isinstance(error, DensembleError):
            write_text(folder.path / "error.txt", "".join(traceback.format_exception(error)))
            report(f"{name}: details in {folder.path / 'error.txt'}")
    except DensembleError as second:
        report(f"{name}: {second}")
    return Outcome(name, "failed", message, error)


def _settings(config: RunConfig, member: MemberConfig, seconds: float | None) -> FitSettings:
    own = member.training(config.training)
    pretrained = member.weights is not None and member.backbone not in OWN
    backbone_rate = own.backbone_learning_rate or own.learning_rate * (BACKBONE_SHARE if pretrained else 1.0)
    return FitSettings(
        epochs=own.epochs,
        learning_rate=own.learning_rate,
        backbone_learning_rate=backbone_rate,
        batch_size=own.batch_size,
        weight_decay=own.weight_decay,
        augment=own.augment,
        bf16=own.precision == "bf16" or (own.precision == "auto" and bf16_is_fast()),
        freeze_statistics=pretrained if own.freeze_statistics is None else own.freeze_statistics,
        seed=own.seed,
        layer_decay=own.layer_decay,
        freeze_epochs=own.freeze_epochs,
        gradient_checkpointing=own.gradient_checkpointing,
        channels_last=own.channels_last,
        cache_features=own.cache_features,
        seconds=seconds,
    )
