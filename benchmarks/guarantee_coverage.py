"""Measure the coverage of guarantees on small objects: requested, reported, and on a test split.

For every seed, train, validation and test images are drawn from one distribution. Small members are trained and
assembled with a guarantee. Objects are 3x3 pixels in images of 192x288; input and output of the members have 32x48. A
target resized to that size keeps one pixel of every fourth object, near its centre, and none of the other objects.

| case | task | objects | guarantee |
|---|---|---|---|
| risk | multilabel | 10 to 40 lesions | `risk`, level 0.35, confidence 0.95 |
| set | segmentation, 2 classes | lesions on 5 to 35 % of the image | `set`, level 0.1 |
| interval | depth | steps of 0.5 to 1 m on 5 to 35 % of the image | `interval`, level 0.1 |

The reported coverage is that of the assembly (`analysis.json`). The test coverage is that of `densemble evaluate` on
the test split. Its interval is a bootstrap over images, computed here from the predictions.

Adds one row for each seed and case to benchmarks/results/guarantee_coverage.json, under a label, so that the same
script can run on the commits that are compared. Each row takes about 20 seconds of one core.

    python benchmarks/guarantee_coverage.py --label before [--seeds 0-19] [--cases risk set interval]
    python benchmarks/guarantee_coverage.py --table
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from environment import environment
from PIL import Image
from torch import Tensor, nn

import densemble as de
from densemble.ensemble.guarantee import ConformalInterval
from densemble.ensemble.resize import resize_maps

RESULT = Path(__file__).parent / "results" / "guarantee_coverage.json"
IMAGE_SIZE, INPUT_SIZE, OBJECT = (192, 288), (32, 48), 3
IMAGES = {"train": 48, "val": 100, "test": 100}
BACKBONE, CUT = "guarantee_coverage:tiny_classifier", "features.3"
LEARNING_RATE, BATCH = 1e-2, 4
RESAMPLES = 2000
INTERVAL = (2.5, 97.5)
"""Percentiles of the bootstrap interval."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Case:
    """A task, its data and the requested guarantee.

    Attributes:
        task: row of ``TASKS``.
        options: options of the data.
        draw: draws an image uint8 ``(H, W, 3)`` and its target.
        target_path: path of a target in the folder of its split, from its stem.
        level: share that may be missed.
        epochs: epochs of training.
        members: number of members; intervals need the variance of several.
        settings: further settings of the run.
    """

    task: str
    options: dict[str, Any]
    draw: Callable[[np.random.Generator], tuple[Array, Array]]
    target_path: str
    level: float
    epochs: int
    members: int
    settings: dict[str, Any]


class TinyClassifier(nn.Module):
    """Two 3x3 convolutions at full resolution and a linear layer: trained in seconds."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        first, second = nn.Conv2d(3, channels, 3, padding=1), nn.Conv2d(channels, channels, 3, padding=1)
        self.features = nn.Sequential(first, nn.ReLU(), second, nn.ReLU())
        self.classifier = nn.Linear(channels, 2)

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(B, 3, H, W)`` -> logits ``(B, 2)``."""
        logits: Tensor = self.classifier(self.features(images).mean((-2, -1)))
        return logits


def tiny_classifier() -> nn.Module:
    """Backbone of all members."""
    return TinyClassifier()


def squares(random: np.random.Generator, count: int) -> Array:
    """Labels ``(H, W)``: 0 for the background, n for the n-th square; a later one covers an earlier one."""
    labels = np.zeros(IMAGE_SIZE, np.int32)
    rows = random.integers(0, IMAGE_SIZE[0] - OBJECT + 1, count)
    columns = random.integers(0, IMAGE_SIZE[1] - OBJECT + 1, count)
    for number, (row, column) in enumerate(zip(rows, columns, strict=True), start=1):
        labels[row : row + OBJECT, column : column + OBJECT] = number
    return labels


def dense_count(random: np.random.Generator) -> int:
    """Number of squares that cover about 5 to 35 % of the image."""
    share = random.uniform(0.05, 0.35)
    return int(-np.log(1 - share) * IMAGE_SIZE[0] * IMAGE_SIZE[1] / OBJECT**2)


def painted(random: np.random.Generator, brightness: Array) -> Array:
    """A noisy grey image of a brightness ``(H, W)`` in [0, 1] with uneven illumination."""
    rows, columns = (np.linspace(-1, 1, side) for side in IMAGE_SIZE)
    slope = random.uniform(-0.1, 0.1, 2)
    light = slope[0] * rows[:, None] + slope[1] * columns[None]
    values = brightness[..., None] + light[..., None] + random.normal(0, 0.03, (*IMAGE_SIZE, 3))
    return (values.clip(0, 1) * 255).round().astype(np.uint8)


def draw_lesions(random: np.random.Generator) -> tuple[Array, Array]:
    """Few bright spots of different contrast; mask 0 or 255."""
    labels = squares(random, int(random.integers(10, 41)))
    contrast = np.concatenate([[0.0], random.uniform(0.5, 0.7, labels.max())])
    return painted(random, 0.2 + contrast[labels]), ((labels > 0) * 255).astype(np.uint8)


def draw_dense_lesions(random: np.random.Generator) -> tuple[Array, Array]:
    """Many bright spots; labels 0 and 1."""
    labels = squares(random, dense_count(random))
    return painted(random, 0.3 + 0.4 * (labels > 0)), (labels > 0).astype(np.uint8)


def draw_steps(random: np.random.Generator) -> tuple[Array, Array]:
    """A sloping ground with many steps; depth in metres, and brighter where it is nearer."""
    labels = squares(random, dense_count(random))
    steps = np.concatenate([[0.0], random.uniform(0.5, 1.0, labels.max())])
    ground = random.uniform(2, 3) + np.linspace(0, random.uniform(0.5, 1), IMAGE_SIZE[0])[:, None]
    depth = ground - steps[labels]
    return painted(random, 1 - depth / 4.5), depth.astype(np.float32)


CASES = {
    "risk": Case("multilabel", {}, draw_lesions, "targets/lesion/{}.png", 0.35, 8, 1, {"class_weights": [10.0]}),
    "set": Case("segmentation", {}, draw_dense_lesions, "targets/{}.png", 0.1, 4, 1, {}),
    "interval": Case("depth", {"unit": "m"}, draw_steps, "targets/{}.tif", 0.1, 4, 2, {}),
}
"""By the name of the guarantee in ``Run.assemble``."""


def write_data(folder: Path, case: Case, seed: int) -> None:
    """Images of all splits, drawn independently from one distribution."""
    random = np.random.default_rng(seed)
    for split, count in IMAGES.items():
        for number in range(count):
            image, target = case.draw(random)
            place = folder / split / "images" / f"{number:03d}.bmp"
            aim = folder / split / case.target_path.format(f"{number:03d}")
            for path in (place, aim):
                path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place)
            if aim.suffix == ".tif":
                tifffile.imwrite(aim, target)
            else:
                Image.fromarray(target).save(aim, compress_level=1)


@torch.no_grad()
def shares_held(ensemble: de.Ensemble, folder: Path, case: Case) -> list[float]:
    """Coverage of each test image with something to cover, from the prediction and the guarantee."""
    shares = []
    for path in sorted((folder / "test" / "images").iterdir()):
        aim = folder / "test" / case.target_path.format(path.stem)
        target = torch.from_numpy(tifffile.imread(aim) if aim.suffix == ".tif" else np.array(Image.open(aim)))
        image = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[None] / 255
        found = held(ensemble, ensemble.predict(image), target)
        if found is not None:
            shares.append(found)
    return shares


def held(ensemble: de.Ensemble, prediction: de.Prediction, target: Tensor) -> float | None:
    """Covered share of one image's target; ``None`` if there is nothing to cover."""
    guarantee, size = ensemble.guarantee, (int(target.shape[0]), int(target.shape[1]))
    assert guarantee is not None
    if isinstance(guarantee, ConformalInterval):
        assert prediction.lower is not None and prediction.upper is not None
        lower, upper = (resize_maps(end, size)[0, 0] for end in (prediction.lower, prediction.upper))
        return float(((lower <= target) & (target <= upper)).double().mean())
    included = guarantee.apply(resize_maps(prediction.mean, size))[0]
    if len(included) == 1:  # one mask
        return float(included[0][target > 0].double().mean()) if (target > 0).any() else None
    return float(included.gather(0, target.long()[None]).double().mean())


def bootstrap(shares: Sequence[float], seed: int) -> list[float]:
    """Bootstrap interval of the mean of shares over images."""
    values = np.array(shares)
    draws = np.random.default_rng(seed).integers(0, len(values), (RESAMPLES, len(values)))
    return [float(value) for value in np.percentile(values[draws].mean(1), INTERVAL)]


def measure(name: str, seed: int) -> dict[str, Any]:
    """One seed of one case."""
    case, started = CASES[name], time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data"
        write_data(path, case, seed)
        data = de.FolderData(path, case.task, **case.options)
        training = {"epochs": case.epochs, "augment": "none", "batch_size": BATCH, "learning_rate": LEARNING_RATE}
        member = {"backbone": BACKBONE, "cut": CUT, "head": "upsample", "weights": None}
        members = [{**member, "name": f"member-{place}", "seed": seed * 10 + place} for place in range(case.members)]
        run = de.train(
            data,
            members,
            Path(folder) / "run",
            input_size=INPUT_SIZE,
            out_size=INPUT_SIZE,
            training=training,
            **case.settings,
            report=lambda line: None,
        )
        ensemble = run.assemble(guarantee=name, level=case.level, seed=seed)
        reported = run.analysis().get("guarantee") or {}
        tested = de.evaluate(ensemble, data, "test")
        shares = shares_held(ensemble, path, case)
    assert ensemble.guarantee is not None
    return {
        "case": name, "seed": seed, "asked": 1 - case.level,
        "guarantee": ensemble.guarantee.describe(),
        "reported": {key: reported.get(key) for key in ("coverage", "low", "high", "mean_size", "checked_on")},
        "test": {key: tested["guarantee"][key] for key in ("coverage", "mean_size", "checked_on")},
        "test_interval": bootstrap(shares, seed), "test_by_image": [round(share, 5) for share in shares],
        "score": tested[ensemble.task.primary],
        "seconds": time.perf_counter() - started,
    }  # fmt: skip


def table(results: dict[str, Any]) -> list[str]:
    """Rows of a Markdown table: one for each case and label."""
    lines = ["| guarantee | label | seeds | asked | reported, mean | test, mean | test, least | seeds below asked |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for name in CASES:
        for label, result in results.items():
            rows = [row for row in result["rows"] if row["case"] == name]
            if not rows:
                continue
            asked, tested = rows[0]["asked"], [row["test"]["coverage"] for row in rows]
            said = [row["reported"]["coverage"] for row in rows if row["reported"]["coverage"] is not None]
            reported = f"{statistics.mean(said):.3f}" if said else ""
            below = sum(value < asked for value in tested)
            figures = f"{reported} | {statistics.mean(tested):.3f} | {min(tested):.3f} | {below} of {len(rows)}"
            lines.append(f"| {name} | {label} | {len(rows)} | {asked:.2f} | {figures} |")
    return lines


def read_results(path: Path) -> dict[str, Any]:
    """Results by label; empty if the file does not exist."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["labels"] if path.is_file() else {}
    return found


def add_row(path: Path, label: str, row: dict[str, Any]) -> None:
    """Add a row to the file, or replace that of the same case and seed, with the current commit and versions."""
    results = read_results(path)
    kept = [
        old
        for old in results.get(label, {}).get("rows", [])
        if (old["case"], old["seed"]) != (row["case"], row["seed"])
    ]
    rows = sorted([*kept, row], key=lambda one: (list(CASES).index(one["case"]), one["seed"]))
    settings = {"image_size": IMAGE_SIZE, "input_size": INPUT_SIZE, "images": IMAGES}
    results[label] = {**environment(), **settings, "rows": rows}
    path.parent.mkdir(exist_ok=True)
    path.write_text(_one_row_a_line(results), encoding="utf-8")


def _one_row_a_line(results: dict[str, Any]) -> str:
    """JSON with short lines, although rows contain a value for every image."""
    labels = []
    for label, result in results.items():
        facts = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in result.items() if key != "rows"]
        rows = ",\n  ".join(json.dumps(row) for row in result["rows"])
        labels.append(f'{json.dumps(label)}: {{\n {", ".join(facts)},\n "rows": [\n  {rows}\n ]\n}}')
    return '{"labels": {\n' + ",\n".join(labels) + "\n}}\n"


def seeds_of(text: str) -> list[int]:
    """``3`` or ``0-9``."""
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--label", help="name of the rows in the file, such as before or after")
    parser.add_argument("--seeds", type=seeds_of, default=list(range(20)), help="one, or a range such as 0-9")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--threads", type=int, default=1, help="the networks are too small for more")
    parser.add_argument("--table", action="store_true", help="only print the table of the file")
    parser.add_argument("-o", "--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    if not arguments.table and not arguments.label:
        parser.error("give --label, or --table")
    torch.set_num_threads(arguments.threads)
    for seed in [] if arguments.table else arguments.seeds:
        for name in arguments.cases:
            row = measure(name, seed)
            add_row(arguments.out, arguments.label, row)
            print(
                f"{name} seed {seed}: asked {row['asked']:.2f}, reported {row['reported']['coverage']}, "
                f"test {row['test']['coverage']:.3f} {row['test_interval']}, score {row['score']:.3f}, "
                f"{row['seconds']:.1f} s",
                flush=True,
            )
    print("\n".join(table(read_results(arguments.out))))


if __name__ == "__main__":
    main()
