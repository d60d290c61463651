"""Measure what a distilled student keeps of an ensemble; writes benchmarks/results/distill.json.

    python benchmarks/bench_distill.py drawn [--seeds 2] [--folder FOLDER]
    python benchmarks/bench_distill.py run NAME ARTIFACT DATA OUT [--student BACKBONE] [--set KEY=VALUE]...

``drawn`` compares weightings, label shares and unlabelled images on drawn scenes, without any real data. The targets
are three levels of attention. An ensemble of three networks without pretraining is trained on few labelled scenes, and
a fourth one learns from it with each of the settings below. The ensemble never saw the unlabelled scenes. Every score
is that of the test scenes, which no training, selection or calibration used.

``run`` distills a trained ensemble with ``densemble.distill`` and stores its report under NAME; it continues an
interrupted distillation.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import environment
from PIL import Image

import densemble as de
from densemble.commands.overrides import with_settings
from densemble.data.synthetic import make_scenes
from densemble.storage.runs import strict

RESULT = Path(__file__).parent / "results" / "distill.json"
LABELLED, UNLABELLED, TEST = 40, 80, 60
SIZE = (48, 64)
LEVELS = (40, 128)
"""Attention of 0..255 from which a pixel belongs to the second and the third class."""
NETWORK, MEMBERS = "squeezenet1_1", 3
"""Backbone, without pretraining, of the student and of the members, which differ in their seeds."""
TRAINING = {"epochs": 12, "batch_size": 8, "learning_rate": 2e-3, "augment": "light", "averaging": "ema"}
SETTINGS: dict[str, dict[str, Any]] = {
    "maps and labels, equal": {"weighting": "equal"},
    "maps and labels, certain": {"weighting": "certain"},
    "maps and labels, uncertain": {"weighting": "uncertain"},
    "maps alone, certain": {"weighting": "certain", "label_share": 0.0},
    "maps and labels, certain, unlabelled": {"weighting": "certain", "unlabelled": True},
}
"""Options of each student by name."""


def draw(folder: Path, seed: int) -> tuple[Path, Path]:
    """Draw labelled and test scenes, and scenes without targets.

    Returns:
        Data folder, whose validation pairs are the test scenes, and folder of unlabelled images.
    """
    if (folder / "others").is_dir():  # an interrupted measurement goes on
        return folder / "data", folder / "others" / "train" / "images"
    data = make_scenes(folder / "data", train=LABELLED, val=TEST, size=SIZE, seed=100 + seed)
    for file in (data / "train" / "targets", data / "val" / "targets"):
        for target in file.iterdir():
            levels = np.digitize(np.asarray(Image.open(target)), LEVELS)
            Image.fromarray(levels.astype(np.uint8)).save(target)
    others = make_scenes(folder / "others", train=UNLABELLED, val=1, size=SIZE, seed=900 + seed)
    return data, others / "train" / "images"


def run_drawn(folder: Path, seed: int) -> dict[str, Any]:
    """Train an ensemble and a student with each setting; return the scores of all models on the test scenes."""
    data, unlabelled = draw(folder / str(seed), seed)
    members = [{"backbone": NETWORK, "weights": None, "seed": 10 * seed + number} for number in range(MEMBERS)]
    options = {"val_from_train": 0.2}
    run = de.train(
        de.FolderData(data, "segmentation", **options), members, folder / str(seed) / "ensemble",
        resume=True, report=None, input_size=SIZE, out_size=(24, 32), training=TRAINING,
    )  # fmt: skip
    ensemble = run.assemble()
    scores: dict[str, Any] = {}
    for number, (name, values) in enumerate(SETTINGS.items()):
        given = {**values, "unlabelled": (unlabelled,) if values.get("unlabelled") else ()}
        result = de.distill(
            ensemble, data, {"backbone": NETWORK, "weights": None, "seed": 10 * seed + 9},
            folder / str(seed) / f"student-{number}.safetensors",
            de.DistillOptions(**given, baseline=number == 0), data_options=options, resume=True, report=None,
            training=TRAINING,
        )  # fmt: skip
        models = {model if model != "student" else name: row for model, row in result.report["models"].items()}
        scores |= {model: {key: row[key] for key in ("miou", "nll", "ece")} for model, row in models.items()}
        print(f"seed {seed}, {name}: {scores[name]}", flush=True)
    return scores


def drawn(seeds: int, folder: Path) -> dict[str, Any]:
    """Return the scores of every seed, and their means."""
    rows = [run_drawn(folder, seed) for seed in range(seeds)]
    means = {
        name: {key: round(statistics.mean(row[name][key] for row in rows), 4) for key in rows[0][name]}
        for name in rows[0]
    }
    return {
        "labelled": LABELLED, "unlabelled": UNLABELLED, "test": TEST, "size": SIZE, "members": MEMBERS,
        "network": NETWORK, "training": TRAINING, "means": means, "seeds": rows,
    }  # fmt: skip


def store(name: str, values: dict[str, Any]) -> None:
    """Add an entry to the result file."""
    results = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    results[name] = {**values, "environment": environment()}
    RESULT.write_text(json.dumps(strict(results), indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    scenes = commands.add_parser("drawn")
    scenes.add_argument("--seeds", type=int, default=2)
    scenes.add_argument("--folder", type=Path)
    real = commands.add_parser("run")
    real.add_argument("name")
    real.add_argument("artifact", type=Path)
    real.add_argument("data", type=Path)
    real.add_argument("out", type=Path)
    real.add_argument("--student", default="timm/tf_efficientnet_lite0")
    real.add_argument("--weighting", default=de.DistillOptions().weighting)
    real.add_argument("--no-baseline", action="store_true")
    real.add_argument("--set", action="append", default=[])
    given = parser.parse_args()
    torch.set_num_threads(min(torch.get_num_threads(), 2))
    if given.command == "drawn":
        with tempfile.TemporaryDirectory() as temporary:
            store("drawn", drawn(given.seeds, given.folder or Path(temporary)))
        return
    settings = with_settings({"members": [{"backbone": given.student}]}, given.set)
    (student,), data_options = settings.pop("members"), settings.pop("data", None)
    options = de.DistillOptions(weighting=given.weighting, baseline=not given.no_baseline)
    result = de.distill(
        de.load(given.artifact), given.data, student, given.out, options,
        data_options=data_options, resume=True, **settings,
    )  # fmt: skip
    report = {key: value for key, value in result.report.items() if key not in ("artifact", "run")}
    store(given.name, {"student": student, "settings": given.set, **report})


if __name__ == "__main__":
    main()
