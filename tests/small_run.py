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
