"""Measure the share of the training time spent waiting for images, on each real data set.

Trains one member for some epochs with every augmentation, and reads ``data_share`` from its metrics.csv: the time
between the end of a step and the start of the next, as a share of the time of all steps. The first epoch of a run also
waits for the first batch. Writes benchmarks/results/loader_share.json. DATA contains the three data sets.

    python benchmarks/loader_share.py DATA WEIGHTS_DIR -o RUNS [--epochs 2] [--backbone timm/tf_efficientnet_lite0]
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import environment

import densemble as de
from densemble.training.callbacks import read_rows

RESULT = Path(__file__).parent / "results" / "loader_share.json"
SETS: dict[str, dict[str, Any]] = {
    "saliency-osie": {"task": "saliency"},
    "segmentation-camvid": {"task": "segmentation", "ignore_index": 11},
    "depth-redkitchen": {"task": "depth", "scale": 0.001, "unit": "m"},
}
AUGMENTS = ("none", "light", "strong")
SIZE = (192, 256)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights_dir", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--backbone", default="timm/tf_efficientnet_lite0")
    arguments = parser.parse_args()
    rows = []
    for name, options in SETS.items():
        data = de.FolderData(arguments.data / name, **options)
        for augment in AUGMENTS:
            out = arguments.out / f"{name}-{augment}"
            training = {"epochs": arguments.epochs, "augment": augment}
            trainer = {"cache_dir": str(arguments.out / "cache")}
            settings = {"input_size": SIZE, "weights_dir": str(arguments.weights_dir), "trainer": trainer}
            de.train(data, [arguments.backbone], out, training=training, **settings)
            (folder,) = (out / "members").iterdir()
            epochs = read_rows(folder / "metrics.csv")
            shares = [row["data_share"] for row in epochs]
            seconds = [row["seconds"] for row in epochs]
            rows.append({"set": name, "augment": augment, "shares": shares, "seconds": seconds})
            print(f"{name:22s} {augment:7s} waits for {100 * float(np.mean(shares)):.2f} % of the steps' time")
    facts = {"environment": environment("lightning"), "threads": torch.get_num_threads(), "size": list(SIZE)}
    RESULT.write_text(
        json.dumps({**facts, "backbone": arguments.backbone, "batch_size": 8, "rows": rows}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
