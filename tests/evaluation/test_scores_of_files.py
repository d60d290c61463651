"""Scores and stored predictions of one network on a split."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data.good_sets import SIZE, heat, save, target_of, write_good
from torch import Tensor, nn

from densemble.data.folder import FolderData
from densemble.evaluation.scores import predict_split
from densemble.selection.open_candidates import _open
from densemble.storage.arrays import write_npy


class Constant(nn.Module):
    """The same logit for every pixel of every image."""

    def __init__(self, logit: float) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(logit))

    def forward(self, images: Tensor) -> Tensor:
        return self.logit.expand(len(images), 1, *SIZE)


@pytest.mark.parametrize(
    ("task", "typical", "options"),
    [
        ("regression", 2.0e5, {}),
        ("regression", -3.0e9, {}),
        ("depth", 1.0e6, {"unit": "mm"}),
        ("depth", 7.0e-9, {"unit": "m"}),
        ("heatmap", 1.0e-8, {"heatmap": "density"}),
    ],
)
def test_kept_predictions_hold_any_value(task: str, typical: float, options: dict[str, Any], tmp_path: Path) -> None:
    write_good(tmp_path, "regression")
    for number, stem in enumerate("abcdef"):
        values = ((0.5 + heat(number)) * typical).astype(np.float32)
        save(target_of(tmp_path, stem).with_suffix(".npy"), values[..., None] if task == "heatmap" else values)
    data = FolderData(tmp_path, task, **options)
    network = Constant(1.0)
    with torch.no_grad():
        expected = float(data.task.activation(network(torch.zeros(1, 3, *SIZE)))[0, 0, 0, 0])
    maps, scores = predict_split(network, data.task, data, "val", SIZE)
    assert all(np.isfinite(score) for score in scores.values() if score is not None)
    write_npy(tmp_path / "maps.npy", maps)
    np.testing.assert_allclose(_open(tmp_path / "maps.npy", 2, 1), expected, rtol=1e-6)
