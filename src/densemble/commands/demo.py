"""The command ``demo``: the whole workflow on generated data, without a download."""

from pathlib import Path
from typing import Annotated, Any

import typer

from densemble.commands.output import print_json, say
from densemble.commands.progress import command_progress
from densemble.commands.shared_options import Json, Quiet
from densemble.commands.train import print_leaderboard
from densemble.terminal import print_result

MEMBERS: list[dict[str, Any]] = [
    {"backbone": "squeezenet1_1", "weights": None},
    {"backbone": "resnet18", "weights": None},
    {"backbone": "resdeconv"},
]
"""Two good members with different errors, and a weak member that selection should leave out."""
SCENES: dict[str, Any] = {"train": 64, "val": 64, "size": (96, 128), "viewers": 2, "noise": 15.0}
"""Few training scenes with noisy targets: each member overfits differently, and their mean has a smaller error."""
PREDICTED_IMAGES = 8
CONFIG: dict[str, Any] = {"task": "saliency", "input_size": [96, 128], "out_size": [48, 64], "members": MEMBERS}


def demo(
    out: Annotated[Path, typer.Option("-o", "--out", help="Output folder.")] = Path("demo-output"),
    epochs: Annotated[int, typer.Option(min=1, help="Training epochs.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the scenes and the training.")] = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run the whole workflow offline: generate images, train three members, assemble, evaluate and predict."""
    with command_progress():
        from densemble.config import make_config
        from densemble.data.folder import FolderData
        from densemble.data.synthetic import make_scenes
        from densemble.engines.leftovers import remove_leftovers
        from densemble.engines.local import train_members
        from densemble.engines.member import raise_failures
        from densemble.errors import UsageError
        from densemble.evaluation.scores import evaluate
        from densemble.inference.predict import predict
        from densemble.run import Run
        from densemble.storage.artifact import load, save

        if (out / "run" / "run.yaml").exists():
            raise UsageError(f"'{out}' already contains a demo; remove it or choose another folder with -o")
        say("generating synthetic scenes with computed gaze maps")
        scenes = make_scenes(out / "scenes", seed=seed, **SCENES)
        training = {"epochs": epochs, "learning_rate": 2e-3, "batch_size": 12, "seed": seed}
        config = make_config({**CONFIG, "training": training})
        data = FolderData(scenes, "saliency")
        raise_failures(train_members(data, config, out / "run"))
        run = Run(out / "run")
        artifact = save(run.assemble(), out / "demo.safetensors")
        remove_leftovers(run.folder, config)
        ensemble = load(artifact)
        scores = evaluate(ensemble, data, "val")
        for prediction in predict(ensemble, [sample.image for sample in data.val[:PREDICTED_IMAGES]]):
            prediction.save(out / "predictions", ("map", "overlay", "uncertainty"))
    if json:
        print_json(
            {"artifact": str(artifact), "run": str(out / "run"), "predictions": str(out / "predictions"), **scores}
        )
        return
    print_leaderboard(run)
    print_result(f"\nreport       {out / 'run' / 'report.html'} (selection, gains and errors)")
    print_result(f"leaderboard  {out / 'run' / 'leaderboard.csv'}")
    print_result(f"predictions  {out / 'predictions'} (map, overlay, uncertainty)")
    print_result(f"artifact     {artifact}")
