"""demo: the whole way on a small made-up data set, offline, in under two minutes."""

from pathlib import Path
from typing import Annotated, Any

import typer

from densemble.commands.output import print_json, print_table, say
from densemble.commands.settings import Json

MEMBERS: list[dict[str, Any]] = [
    {"backbone": "squeezenet1_1", "weights": None},
    {"backbone": "timm/tf_efficientnet_lite0", "weights": None, "name": "efficientnet_lite0"},
    {"backbone": "resdeconv"},
]


def demo(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write.")] = Path("demo-output"),
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training scenes.")] = 10,
    json: Json = False,
) -> None:
    """Make synthetic scenes, train three cut networks on them, assemble, evaluate and predict. No download."""
    from densemble.config import make_config
    from densemble.data.folder import FolderData
    from densemble.data.synthetic import make_scenes
    from densemble.engines.local import train_members
    from densemble.errors import UsageError
    from densemble.evaluation import evaluate
    from densemble.inference.predictor import predict
    from densemble.launch import raise_failures
    from densemble.run import Run
    from densemble.storage.artifact import load, save

    if (out / "run" / "run.yaml").exists():
        raise UsageError(f"'{out}' holds a demo already; remove it or choose another folder with -o")
    say("making synthetic scenes (drawn by the program, with made-up gaze maps)")
    scenes = make_scenes(out / "scenes", train=120, val=24, size=(96, 128))
    values = {
        "task": "saliency",
        "input_size": [96, 128],
        "out_size": [48, 64],
        "members": MEMBERS,
        "training": {"epochs": epochs, "learning_rate": 2e-3, "batch_size": 12},
    }
    data = FolderData(scenes, "saliency")
    outcomes = train_members(data, make_config(values), out / "run", report=say)
    raise_failures(outcomes)
    run = Run(out / "run")
    artifact = save(run.assemble(report=say), out / "demo.safetensors")
    ensemble = load(artifact)
    scores = evaluate(ensemble, data, "val")
    for prediction in predict(ensemble, [sample.image for sample in data.val[:8]]):
        prediction.save(out / "predictions", ("map", "overlay", "uncertainty"))
    if json:
        print_json(
            {"artifact": str(artifact), "run": str(out / "run"), "predictions": str(out / "predictions"), **scores}
        )
        return
    table = run.leaderboard().reset_index()
    print_table([str(name) for name in table.columns], table.values.tolist())
    typer.echo(f"report       {out / 'run' / 'report.html'} (what was chosen, why, and what it is worth)")
    typer.echo(f"leaderboard  {out / 'run' / 'leaderboard.csv'}")
    typer.echo(f"predictions  {out / 'predictions'} (map, overlay, uncertainty)")
    typer.echo(f"artifact     {artifact}")
