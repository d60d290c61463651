"""Messages of the command line if an ensemble runs without some members."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from densemble.ensemble.ensemble import Ensemble
from densemble.nets.dense import DenseModel
from densemble.storage.artifact import save


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """Ensemble of two members; the second one gives NaN."""
    torch.manual_seed(0)
    members = {
        name: DenseModel("squeezenet1_1", out_size=(12, 16), weights=None, input_size=(48, 64))
        for name in ("good", "bad")
    }
    with torch.no_grad():
        next(members["bad"].parameters()).fill_(float("nan"))
    return save(Ensemble(members), tmp_path / "e.safetensors")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path := tmp_path / "photo.png")
    return path


def test_all_members_are_required_by_default(
    artifact: Path, photo: Path, densemble: Callable[..., Any], tmp_path: Path
) -> None:
    done = densemble("predict", artifact, photo, "-o", tmp_path / "out")
    assert done.returncode == 4 and "member 'bad' gives NaN" in done.stderr and "--min-members" in done.stderr
    assert not list((tmp_path / "out").glob("photo*"))


@pytest.mark.filterwarnings("ignore:member 'bad' gives NaN")
def test_prediction_without_a_member_is_a_partial_success(
    artifact: Path, photo: Path, densemble: Callable[..., Any], tmp_path: Path
) -> None:
    done = densemble("predict", artifact, photo, "-o", tmp_path / "out", "--min-members", 1)
    assert done.returncode == 5 and "without 1 of the members: bad: gives NaN or infinity" in done.stderr
    assert (tmp_path / "out" / "photo_map.png").is_file()
