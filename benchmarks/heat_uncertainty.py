"""Compare uncertainty maps of saliency with the error of the map, on held-out images.

    python benchmarks/heat_uncertainty.py ARTIFACT DATA [--images 20] [--portrait]

For each image, the rank correlation (Spearman) over the pixels between the absolute error, |map - target|, and the
entropy, the standard deviation over the members, the mutual information, and the map itself. The first three are also
correlated with the map: a measure with a correlation of 1 shows the map in other colours. The partial correlation with
the error, given the map, says what a measure adds to the map. The images are every n-th of the split ``val``. Writes
benchmarks/results/heat_uncertainty.json.

``--portrait`` draws docs/assets/portrait.jpg instead: a photo that comes with matplotlib, its map and its uncertainty.
"""

import argparse
import json
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from environment import environment
from matplotlib.cbook import get_sample_data
from scipy.stats import rankdata

import densemble as de
from densemble.data.targets import resize_target
from densemble.inference.image_prediction import ImagePrediction

ROOT = Path(__file__).resolve().parents[1]
RESULT, PORTRAIT = ROOT / "benchmarks/results/heat_uncertainty.json", ROOT / "docs/assets/portrait.jpg"
MEASURES = ("entropy", "deviation", "mutual_information")


def predicted(ensemble: de.Ensemble, image: str | Path) -> ImagePrediction:
    (prediction,) = de.predict(ensemble, image, backend="eager", precision="fp32")
    assert isinstance(prediction, ImagePrediction)
    return prediction


def correlations(prediction: ImagePrediction, target: torch.Tensor) -> dict[str, dict[str, float]]:
    """Rank correlations of the measures with the error, with the map, and with the error given the map."""
    assert prediction.entropy is not None and prediction.mutual_information is not None
    maps = {
        "error": (prediction.mean[0] - target).abs(),
        "map": prediction.mean[0],
        "entropy": prediction.entropy,
        "deviation": prediction.spread()[0].sqrt(),
        "mutual_information": prediction.mutual_information,
    }
    table = np.corrcoef([rankdata(values.numpy().ravel()) for values in maps.values()])
    rows = {name: dict(zip(maps, row, strict=True)) for name, row in zip(maps, table.tolist(), strict=True)}
    error_map = rows["error"]["map"]
    return {
        "error": {name: rows[name]["error"] for name in (*MEASURES, "map")},
        "map": {name: rows[name]["map"] for name in MEASURES},
        "error_given_map": {
            name: (rows[name]["error"] - error_map * rows[name]["map"])
            / ((1 - error_map**2) * (1 - rows[name]["map"] ** 2)) ** 0.5
            for name in ("deviation", "mutual_information")
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--portrait", action="store_true")
    arguments = parser.parse_args()
    ensemble, data = de.load(arguments.artifact), de.FolderData(arguments.data, "saliency")
    if arguments.portrait:
        portrait = predicted(ensemble, get_sample_data("grace_hopper.jpg", asfileobj=False))
        portrait.figure().savefig(PORTRAIT, dpi=75)
        return
    samples = data.val[:: max(len(data.val) // arguments.images, 1)][: arguments.images]
    rows = []
    for sample in samples:
        prediction = predicted(ensemble, sample.image)
        height, width = prediction.image.shape[:2]
        target = resize_target(torch.from_numpy(data.read_target(sample)), (height, width), data.kind)
        rows.append({"image": prediction.name, **correlations(prediction, target)})
        print(rows[-1], flush=True)
    tables = ("error", "map", "error_given_map")
    means = {of: {name: mean(row[of][name] for row in rows) for name in rows[0][of]} for of in tables}
    closer = sum(row["error"]["deviation"] > row["error"]["entropy"] for row in rows)
    result = {
        "environment": environment("scipy"),
        "data": arguments.data.name,
        "members": len(ensemble.members),
        "weights": ensemble.weights,
        "images": len(rows),
        "mean": means,
        "deviation_above_entropy": closer,
        "rows": rows,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(means, indent=1), closer)


if __name__ == "__main__":
    main()
