"""A run of two small members on ten images, and what must be true of its files after a failure or a kill."""

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file

from densemble.data.synthetic import make_scenes
from densemble.storage.temporary import TEMPORARY

MEMBER = {"backbone": "squeezenet1_1", "weights": None, "cut": "features.3", "head": "upsample"}
CONFIG: dict[str, Any] = {
    "task": "saliency",
    "input_size": [32, 48],
    "out_size": [8, 12],
    "members": [{**MEMBER, "name": "a"}, {**MEMBER, "name": "b", "head": "fpn"}],
    "training": {"epochs": 2, "batch_size": 4, "precision": "fp32"},
}
_COMPARED = (".safetensors", ".npy", ".png", ".csv")
_WITH_TIMES = ("leaderboard.csv", "metrics.csv")


def write_set(folder: Path) -> Path:
    """Write the images; returns their folder."""
    return make_scenes(folder / "set", train=6, val=4, size=(32, 48))


def write_config(path: Path, **changes: Any) -> Path:
    path.write_text(yaml.safe_dump({**CONFIG, **changes}))
    return path


def unreadable(folder: Path) -> list[str]:
    """Say which files of a folder are damaged; files in temporary folders are not those of a user."""
    problems = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not any(TEMPORARY.fullmatch(part) for part in path.parts):
            try:
                _read(path)
            except (OSError, ValueError, EOFError, SafetensorError, yaml.YAMLError) as error:
                problems.append(f"{path.relative_to(folder)} is damaged: {error}")
    return problems


def _read(path: Path) -> None:
    match path.suffix:
        case ".json":
            json.loads(path.read_text())
        case ".jsonl":
            lines = path.read_bytes().splitlines(keepends=True)
            for line in lines if not lines or lines[-1].endswith(b"\n") else lines[:-1]:  # the last is read as missing
                json.loads(line)
        case ".yaml":
            yaml.safe_load(path.read_text())
        case ".npy":
            np.load(path)
        case ".safetensors":
            load_file(path)
        case ".csv":
            rows = list(csv.reader(path.read_text().splitlines()))
            if len({len(row) for row in rows}) != 1:
                raise ValueError("its rows have different lengths")
        case ".png" | ".tif":
            with Image.open(path) as image:
                image.load()
        case ".html":
            if not path.read_text().rstrip().endswith("</html>"):
                raise ValueError("it is cut short")


def leftovers(folder: Path) -> list[str]:
    """Name temporary folders and lock files."""
    paths = (path for path in folder.rglob("*") if TEMPORARY.fullmatch(path.name) or path.name == ".lock")
    return [f"{path.relative_to(folder)} is left over" for path in sorted(paths)]


def differences(folder: Path, expected: Path) -> list[str]:
    """Say where weights, predictions and images of two output folders differ, bit by bit."""
    problems = []
    for path in sorted(expected.rglob("*")):
        name = path.relative_to(expected)
        if path.suffix not in (".safetensors", ".npy", ".png", ".csv") or path.name in (
            "leaderboard.csv",
            "metrics.csv",
        ):
            continue
        if path.parent.name in ("plots", "cache") or "cache" in name.parts:
            continue
        other = folder / name
        if not other.is_file():
            problems.append(f"{name} is missing")
        elif path.suffix == ".safetensors":
            one, two = load_file(path), load_file(other)
            if one.keys() != two.keys() or any(not np.array_equal(one[key], two[key]) for key in one):
                problems.append(f"{name} has other weights")
        elif path.suffix == ".npy" and not np.array_equal(np.load(path), np.load(other)):
            problems.append(f"{name} differs by {abs(np.load(path).astype(float) - np.load(other)).max():.2g}")
        elif path.suffix != ".npy" and path.read_bytes() != other.read_bytes():
            problems.append(f"{name} differs")
    return problems


@dataclass(frozen=True)
class Undisturbed:
    """A run that nothing disturbed, its images, its configuration, and predictions with it.

    ``ends`` are the ends of ``train`` and ``predict``.
    """

    data: Path
    config: Path
    run: Path
    predictions: Path
    ends: dict[str, Any] = field(default_factory=dict)

    @property
    def artifact(self) -> Path:
        return self.run / "ensemble.safetensors"

    @property
    def images(self) -> Path:
        return self.data / "val" / "images"

    def train(self, out: Path) -> list[object]:
        """Arguments of a training like this one; it is continued if there is something to continue."""
        resume = ["--resume"] if (out / "run.yaml").is_file() else ["--config", self.config]
        return ["train", self.data, "-o", out, "--keep-checkpoints", *resume]

    def predict(self, out: Path) -> list[object]:
        options = ["--save", "map,overlay,npy,csv", "--backend", "eager", "--precision", "fp32", "--batch", 1]
        return ["predict", self.artifact, self.images, "-o", out, *options]
