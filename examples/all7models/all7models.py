"""Train the seven members, then compare five that are selected by hand with a held-out selection.

    python examples/all7models/all7models.py DATA -o runs/gaze
    python examples/all7models/all7models.py DATA -o runs/gaze --from-scratch --set training.epochs=3

DATA contains {train,val}/{images,targets} with gaze maps. Without --from-scratch, the six classifiers start from
torchvision's pretrained weights. The same command continues an interrupted run.
"""

import argparse
from pathlib import Path

import densemble as de
from densemble.commands.overrides import with_settings
from densemble.config import read_config

HERE = Path(__file__).resolve().parent
BY_HAND = "densenet201,inception_v3,resnet152,vgg19_bn,resdeconv"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/all7models"))
    parser.add_argument("--from-scratch", action="store_true", help="no pretrained weights, no download")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of run.yaml")
    arguments = parser.parse_args()

    settings = with_settings(read_config(HERE / "run.yaml"), arguments.set)
    if arguments.from_scratch:
        settings["members"] = [{**member, "weights": None} for member in settings["members"]]

    run = de.train(arguments.data, out=arguments.out, resume=True, **settings)
    for name, select in (("by-hand", BY_HAND), ("by-score", "greedy")):
        ensemble = run.assemble(select, report=print)
        cc = ensemble.metrics["val"]["cc"]
        path = de.save(ensemble, arguments.out / f"{name}.safetensors")
        print(f"{name}: {len(ensemble.members)} networks, val cc {cc:.4f}, {path}")
    print(run.leaderboard())

    images = de.FolderData(arguments.data, task="saliency").val[:4]
    for prediction in de.predict(ensemble, [image.image for image in images]):
        prediction.save(arguments.out / "predictions", ("map", "overlay", "uncertainty"))
    print(f"predictions of the last ensemble in {arguments.out / 'predictions'}")


if __name__ == "__main__":
    main()
