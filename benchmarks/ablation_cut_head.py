"""Compare cuts and heads: strides from 4 to 32 with every head, trained on real data with pretrained weights.

There is one run folder per data set, backbone and head, with one member per stride. Finished members are kept, so a
second call continues. Writes benchmarks/results/ablation_cut_head.json. DATA contains saliency-osie and
segmentation-camvid.

    python benchmarks/ablation_cut_head.py DATA WEIGHTS_DIR -o RUNS [--heads upsample,skip] [--strides 8,16]
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from environment import environment

import densemble as de
from densemble.nets.heads import HEADS

RESULT = Path(__file__).parent / "results" / "ablation_cut_head.json"
INPUT_SIZE = (192, 256)
STRIDES = (4, 8, 16, 32)
CAMVID = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"]
FOLDERS: dict[str, dict[str, Any]] = {
    "saliency-osie": {"task": "saliency"},
    "segmentation-camvid": {"task": "segmentation", "classes": CAMVID, "ignore_index": 11},
}
OUT_SIZES = {"saliency-osie": [48, 64], "segmentation-camvid": None}


def member(backbone: str, head: str, stride: int) -> dict[str, Any]:
    size = [INPUT_SIZE[0] // stride, INPUT_SIZE[1] // stride]
    return {"name": f"s{stride}", "backbone": backbone, "head": head, "min_size": size}


def train(data: Path, name: str, arguments: argparse.Namespace, backbone: str, head: str) -> list[dict[str, Any]]:
    out = arguments.out / name / backbone.split("/")[-1] / head
    config = {
        "input_size": list(INPUT_SIZE),
        "weights_dir": str(arguments.weights_dir),
        "training": {"epochs": arguments.epochs, "learning_rate": 2e-3, "batch_size": 8, "seed": 0},
        "out_size": OUT_SIZES[name],
        "members": [member(backbone, head, stride) for stride in arguments.strides],
    }
    folder = de.FolderData(data / name, **FOLDERS[name])
    run = de.train(folder, out=out, resume=(out / "run.yaml").is_file(), **config)
    rows = []
    for trained, record in run.trained().items():
        spec, scores = record["spec"], record["val"]
        rows.append(
            {
                "set": name,
                "backbone": backbone,
                "head": head,
                "stride": int(trained.removeprefix("s")),
                "epochs": arguments.epochs,
                "node": spec["node"],
                "parameters": record["parameters"],
                "seconds": record["seconds"],
                **{key: scores[key] for key in ("cc", "nss", "kl", "miou", "accuracy") if key in scores},
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights_dir", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--sets", type=lambda text: text.split(","), default=list(FOLDERS))
    parser.add_argument("--backbones", type=lambda text: text.split(","), default=["timm/tf_efficientnet_lite0"])
    parser.add_argument("--heads", type=lambda text: text.split(","), default=list(HEADS))
    parser.add_argument("--strides", type=lambda text: [int(s) for s in text.split(",")], default=list(STRIDES))
    parser.add_argument("--epochs", type=int, default=4)
    arguments = parser.parse_args()
    torch.set_num_threads(min(torch.get_num_threads(), 2))
    rows = [
        row
        for head in arguments.heads
        for name in arguments.sets
        for backbone in arguments.backbones
        for row in train(arguments.data, name, arguments, backbone, head)
    ]
    kept = json.loads(RESULT.read_text())["rows"] if RESULT.is_file() else []
    keys = ("set", "backbone", "head", "stride", "epochs")
    merged = {tuple(row[key] for key in keys): row for row in (*kept, *rows)}
    result = {
        **environment("lightning"),
        "input_size": INPUT_SIZE,
        "rows": list(merged.values()),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
