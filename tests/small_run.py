"""Settings of a run that takes seconds: three members without pretrained weights, 48x64 images."""

from typing import Any

SMALL_RUN: dict[str, Any] = {
    "task": "saliency",
    "input_size": [48, 64],
    "out_size": [12, 16],
    "members": [
        {"backbone": "squeezenet1_1", "weights": None},
        {"backbone": "resdeconv"},
        {"backbone": "timm/tf_efficientnet_lite0", "name": "lite0", "weights": None},
    ],
    "training": {"epochs": 2, "batch_size": 8, "precision": "fp32"},
}

DONE: dict[str, Any] = {
    "state": "done", "val": {"cc": 0.5}, "parameters": 1, "epochs": 1, "seconds": 1.0,
    "spec": {
        "backbone": "resdeconv", "node": "stages.0", "channels": 8, "head": "upsample", "doublings": 0,
        "out_channels": 1, "out_size": None, "input_size": None, "mean": [0.5] * 3, "std": [0.5] * 3,
    },
}  # fmt: skip
"""Record of a member whose training is finished."""
