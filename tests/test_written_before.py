"""A run and an artifact written by an earlier version load and give the same predictions.

``written_before/predictions.npz`` contains the predictions of the version that wrote the files, for the validation
images. The tolerance is needed because convolutions round differently between processors. Decisions may differ where
two classes are tied.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import densemble as de
from densemble.storage.images import read_image

WRITTEN = Path(__file__).parent / "written_before"
TOLERANCE = 1e-5
IMAGES = 2
DECISIONS = ("label", "disagreement", "included")  # may differ at ties


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    files = sorted((WRITTEN / "data" / "val" / "images").iterdir())[:IMAGES]
    return torch.stack([torch.tensor(read_image(file)).permute(2, 0, 1) / 255 for file in files])


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    with np.load(WRITTEN / "predictions.npz") as arrays:
        return dict(arrays)


def assert_predicts(ensemble: de.Ensemble, images: torch.Tensor, expected: dict[str, np.ndarray], prefix: str) -> None:
    prediction = ensemble.predict(images)
    for name, maps in expected.items():
        if not name.startswith(prefix):
            continue
        map_now = getattr(prediction, name.removeprefix(prefix)).numpy()
        if name.removeprefix(prefix) in DECISIONS:
            assert (map_now != maps).mean() <= 1e-3, name
        else:
            np.testing.assert_allclose(map_now, maps, rtol=0, atol=TOLERANCE, err_msg=name)


def test_artifact(images: torch.Tensor, expected: dict[str, np.ndarray]) -> None:
    names = {name.removeprefix("artifact.") for name in expected if name.startswith("artifact.")}
    assert {"mean", "variance", "entropy", "mutual_information", "label", "included"} <= names
    assert_predicts(de.load(WRITTEN / "all.safetensors"), images, expected, "artifact.")


def test_run(images: torch.Tensor, expected: dict[str, np.ndarray], tmp_path: Path) -> None:
    shutil.copytree(WRITTEN / "run", tmp_path / "run")
    run = de.Run(tmp_path / "run", WRITTEN / "data")
    scores = run.leaderboard()["miou"]
    assert scores[["stem", "stage"]].tolist() == pytest.approx(expected["leaderboard"].tolist(), abs=1e-6)
    assert_predicts(run.assemble(select="all", combine="mean"), images, expected, "run.")
