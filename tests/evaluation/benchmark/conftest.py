"""Fixtures: a small ensemble with random weights, and its artifact."""

from pathlib import Path

import pytest
import torch

import densemble as de

OPTIONS = {"weights": None, "input_size": (48, 64), "out_size": (12, 16)}


@pytest.fixture(scope="session")
def small_ensemble() -> de.Ensemble:
    torch.manual_seed(0)
    members = {name: de.DenseModel(name, **OPTIONS) for name in ("resdeconv", "squeezenet1_1")}
    return de.Ensemble(members, weights=[1, 3], temperatures={"resdeconv": 2.0}).eval()


@pytest.fixture(scope="session")
def small_artifact(small_ensemble: de.Ensemble, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("artifact") / "small.safetensors"
    de.save(small_ensemble, path)
    return path
