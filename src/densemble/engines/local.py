"""The local engine: members are trained one after the other on this machine, each standing for itself."""

import json
import os
import platform
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from densemble.config import MemberConfig, RunConfig, TrainerConfig, make_config, read_config
from densemble.data.cache import DecodedSplit, decode_split
from densemble.data.folder import FolderData
from densemble.engines.budget import Budget
from densemble.engines.plan import fit_settings, sizes, trained_task
from densemble.errors import DensembleError, ResourceError, UsageError
from densemble.evaluation import predict_split, score_baselines, seconds_to_predict
from densemble.nets.backbones import resolve
from densemble.nets.choose import choose, limits
from densemble.nets.cuts import all_nodes
from densemble.nets.dense import DenseModel, default_head
from densemble.nets.heads import WITH_SKIPS, require_head
from densemble.nets.weights import read_state
from densemble.report.curves import draw_curves
from densemble.storage.runs import (
    MemberFolder,
    RunFolder,
    read_json,
    require_writable,
    write_json,
    write_text,
)
from densemble.storage.weights import write_maps
from densemble.tasks import Task
from densemble.training.callbacks import read_rows
from densemble.training.fit import fit_member, seed_everything
from densemble.training.module import scalars

Report = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """How one member ended: ``done``, ``kept`` (finished before), or ``failed`` with the reason."""

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
        seconds: shared among the members that are still to be trained, the cheapest first; see :class:`Budget`.
        report: called with one line of text at every step.

    Raises:
        UsageError: the folder holds another run, or a member is named wrongly.
        DataError: pictures or maps that cannot be used.
        ResourceError: the folder cannot be written.
    """
    run = RunFolder(out)
    budget = Budget(seconds)
    costs = _check_members(config)
    _open_run(run, data, config, resume)
    train = _decode_all(data, config, run, report)
    task = trained_task(data.task, config, train)
    write_json(
        run.state, {"data": str(data.path.resolve()), "task": task.describe(), "val": [s.stem for s in data.val]}
    )
    _keep_baselines(run, task, data, train, config)
    names = config.member_names()
    todo = [i for i, name in enumerate(names) if not _is_done(run.member(i, name))]
    outcomes = {i: Outcome(name, "kept") for i, name in enumerate(names) if i not in todo}
    for number in outcomes:
        report(f"{names[number]}: already trained, kept")
    order = sorted(todo, key=lambda i: costs[i]) if budget.limited else todo
    for place, number in enumerate(order):
        name, member, folder = names[number], config.members[number], run.member(number, names[number])
        share = budget.share(len(order) - place)
        outcomes[number] = _train_one(data, task, config, member, name, folder, run, share, report)
        _event(run, {"member": name, "state": outcomes[number].state, "error": outcomes[number].error})
    return [outcomes[number] for number in range(len(names))]


def _check_members(config: RunConfig) -> list[float]:
    """Finds misspelt names and impossible cuts of all members before any of them is trained.

    Returns:
        Multiply-accumulates of each member up to its cut.
    """
    if config.weights_dir is not None and not Path(config.weights_dir).expanduser().is_dir():
        raise ResourceError(f"weights_dir '{config.weights_dir}' is no folder; create it or leave it out")
    costs = []
    for member in config.members:
        backbone, _ = resolve(member.backbone, member.weights)
        if member.head is not None:
            require_head(member.head)
        size = member.input_size or config.input_size
        sees_levels = (member.head or default_head(backbone)) in WITH_SKIPS
        within = limits(size, config.out_size, member.min_size, member.max_stride, member.max_macs, sees_levels)
        costs.append(float(choose(all_nodes(backbone, size), member.cut, within, backbone).macs))
    return costs


def _open_run(run: RunFolder, data: FolderData, config: RunConfig, resume: bool) -> None:
    if run.config.exists() and not resume:
        raise UsageError(f"'{run.path}' holds a run already; go on with --resume, or choose another folder with -o")
    require_writable(run.path)
    stored = make_config(read_config(run.config), str(run.config)) if run.config.exists() else config
    if _trained_by(stored) != _trained_by(config):
        raise UsageError(
            f"'{run.config}' differs from the settings given now; resume without --config, --set and --members, "
            "or choose another folder with -o"
        )
    write_text(run.config, config.to_yaml())
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


def _cache(config: RunConfig, run: RunFolder) -> Path:
    return Path(config.trainer.cache_dir).expanduser() if config.trainer.cache_dir else run.cache


def _decode_all(data: FolderData, config: RunConfig, run: RunFolder, report: Report) -> DecodedSplit:
    """Decodes for every size that occurs: what is wrong with the data shows before hours are spent.

    Returns:
        The training split in the size of the first member.
    """
    started = time.monotonic()
    first = sizes(config, config.members[0])[0]
    decoded = {
        (size, split): decode_split(data, split, size, _cache(config, run))
        for size in sorted({sizes(config, member)[0] for member in config.members})
        for split in ("train", "val")
    }
    report(f"{len(data.train)} + {len(data.val)} pictures decoded in {time.monotonic() - started:.1f} s")
    return decoded[first, "train"]


def _keep_baselines(run: RunFolder, task: Task, data: FolderData, train: DecodedSplit, config: RunConfig) -> None:
    if not run.baselines.is_file():
        target_size = sizes(config, config.members[0])[1]
        write_json(run.baselines, score_baselines(task, data, train, target_size))


def _train_one(
    data: FolderData,
    task: Task,
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
        settings = fit_settings(config, member, seconds)
        seed_everything(settings.seed)
        size, target_size, map_size = sizes(config, member)
        cache = _cache(config, run)
        splits = [decode_split(data, split, size, cache) for split in ("train", "val")]
        model = DenseModel(
            member.backbone,
            out_channels=task.out_channels,
            in_channels=splits[0].images.shape[1],
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
        if settings.channels_last:
            model.to(memory_format=torch.channels_last)
        if settings.seconds is not None:
            ending = seconds_to_predict(model, task, data, "val")
            settings = replace(settings, seconds=max(settings.seconds - ending - (time.monotonic() - started), 1.0))
        fitted = fit_member(model, task, splits[0], splits[1], target_size, settings, folder, name, cache)
        model.load_state_dict(read_state(folder.weights))
        maps, scores = predict_split(model.float().eval(), task, data, "val", map_size)
        write_maps(folder.predictions, maps)
        draw_curves(read_rows(folder.metrics), name, folder.plots / "curves.png")
        record |= {
            "state": "done",
            "spec": model.spec.as_dict(),
            "loaded": model.loaded,
            "parameters": sum(p.numel() for p in model.parameters()),
            **{key: value for key, value in fitted.items() if key != "best"},
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
