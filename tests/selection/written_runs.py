"""Run folders written without training: networks with random weights and their real predictions."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from task_sets import TASK_SETS, write
from torch import Tensor

from densemble.config import make_config
from densemble.data.folder import FolderData
from densemble.data.synthetic import make_scenes
from densemble.data.targets import resize_target
from densemble.evaluation.scores import predict_split
from densemble.nets.dense import DenseModel
from densemble.run import Run
from densemble.selection.candidate_maps import ServedLogits
from densemble.selection.variants import Candidate
from densemble.storage.arrays import write_npy
from densemble.storage.runs import RunFolder
from densemble.storage.weight_files import write_tensors
from densemble.storage.writing import write_json, write_text
from densemble.tasks import Task

NAMES = ("one", "two", "three")
SIZE, MAP_SIZE = (48, 64), (12, 16)
IMAGES = 8
PLANTED = "planted.npy"
"""File with maps that a member serves instead of the output of its network."""
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Written:
    """A run folder of three members named ``one``, ``two`` and ``three``, and its data."""

    path: Path
    data: FolderData
    task: Task

    @property
    def run(self) -> Run:
        return Run(self.path)

    def folder(self, name: str) -> Path:
        return self.path / "members" / f"{NAMES.index(name) + 1:02d}-{name}"

    def maps(self, name: str) -> Path:
        return self.folder(name) / "val_predictions.npy"

    def plant(self, spreads: Sequence[float], seed: int = 0) -> None:
        """Store the target plus noise of these standard deviations as kept and served predictions."""
        random = np.random.default_rng(seed)
        for name, spread in zip(NAMES, spreads, strict=True):
            maps = [noisy(self.task, target, spread, random) for target in self.small_targets()]
            self.plant_maps(name, torch.stack(maps).half().numpy())

    def plant_maps(self, name: str, kept: Array, served: Array | None = None) -> None:
        """Store predictions ``(N, K, h, w)`` of a member: kept and served maps, by default the same."""
        write_npy(self.maps(name), kept)
        np.save(self.folder(name) / PLANTED, kept if served is None else served)

    def small_targets(self) -> list[Tensor]:
        """Validation targets at the size of the kept maps."""
        return [resize_target(target, MAP_SIZE, self.task.target_kind) for target in self.targets()]

    def targets(self) -> list[Tensor]:
        """Validation targets at full size."""
        return [torch.from_numpy(np.array(self.data.read_pair(sample)[1])) for sample in self.data.val]

    def copy(self, folder: Path) -> "Written":
        """Copy the run to another folder."""
        shutil.copytree(self.path, folder)
        return Written(folder, self.data, self.task)


def planted_logits(task: Task, candidate: Candidate, data: FolderData, images: Sequence[int]) -> Iterator[ServedLogits]:
    """Replace :func:`run_candidate`: return the logits of the planted maps."""
    served = torch.from_numpy(np.load(candidate.predictions.parent / PLANTED)).double()
    size = (int(served.shape[-2]), int(served.shape[-1]))
    for image in images:
        maps = served[image]
        match task.distribution:
            case "categorical":
                logits = maps.clamp(min=1e-6).log()
            case "bernoulli":
                logits = torch.logit(maps, eps=1e-6)
            case _:
                scale = float(task.activation(torch.zeros(1, 1, *size)).mean() / np.log(2))
                logits = torch.log(torch.expm1(maps / scale))
        target = torch.from_numpy(np.array(data.read_pair(data.val[image])[1]))
        yield ServedLogits(image, logits.float(), size, target)


def noisy(task: Task, target: Tensor, spread: float, random: np.random.Generator) -> Tensor:
    """An activated map ``(K, h, w)``: the target plus noise."""
    ideal, valid = task.as_maps(target)
    noise = torch.from_numpy(random.normal(size=ideal.shape).astype(np.float32)) * spread
    match task.distribution:
        case "categorical":
            return torch.softmax(2 * ideal + noise, 0)
        case "bernoulli":
            return torch.sigmoid(4 * ideal - 2 + noise)
    return (torch.where(valid, ideal, 1.0) + noise).clamp(min=0.01)


def write_run(folder: Path, kind: str, images: int = IMAGES, members: int = 3) -> Written:
    """Write a run on a small data set.

    Args:
        folder: to write into.
        kind: ``saliency``, or a key of ``TASK_SETS``.
        images: number of validation images.
        members: number of members.
    """
    data = _open(folder / "data", kind, images)
    settings = {
        "task": data.task_name, "input_size": list(SIZE), "out_size": list(MAP_SIZE), "data": data.options,
        "members": [{"backbone": "resdeconv", "name": name} for name in NAMES[:members]],
    }  # fmt: skip
    config = make_config(settings)
    run = RunFolder(folder / "run")
    run.path.mkdir()
    write_text(run.config, config.to_yaml())
    stems = [sample.stem for sample in data.val]
    write_json(run.state, {"data": str(data.path), "task": data.task.describe(), "val": stems})
    for number, name in enumerate(NAMES[:members]):
        _write_member(run, number, name, data)
    return Written(run.path, data, data.task)


def _open(folder: Path, kind: str, images: int) -> FolderData:
    if kind == "saliency":
        return FolderData(make_scenes(folder, train=2, val=images, size=SIZE), kind)
    task, options, draw = TASK_SETS[kind]
    return FolderData(write(folder, draw, train=2, val=images), task, **options)


def _write_member(run: RunFolder, number: int, name: str, data: FolderData) -> None:
    network = make_network(data.task, number)
    folder = run.member(number, name)
    folder.path.mkdir(parents=True)
    write_tensors(folder.weights, network.state_dict())
    maps, scores = predict_split(network, data.task, data, "val", MAP_SIZE)
    write_npy(folder.predictions, maps)
    write_text(folder.metrics, "epoch,train_loss,val_loss\n1,2.0,2.5\n2,1.0,nan\n")
    record: dict[str, Any] = {
        "name": name, "state": "done", "spec": network.spec.as_dict(), "val": scores, "epochs": 2, "best_epoch": 2,
        "seconds": 1.0, "parameters": sum(parameter.numel() for parameter in network.parameters()),
    }  # fmt: skip
    write_json(folder.record, record)


def make_network(task: Task, seed: int) -> DenseModel:
    """An untrained network with a map that is not constant."""
    torch.manual_seed(seed)
    options = {"cut": "stages.0", "head": "upsample", "input_size": SIZE, "weights": None}
    network = DenseModel("resdeconv", out_channels=task.out_channels, out_size=MAP_SIZE, **options)
    torch.nn.init.normal_(network.head.logits.weight, std=0.5)
    return network.eval()
