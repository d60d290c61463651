"""Every task from files to predictions on disk: training, comparison with baselines, and report."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from sampled import sampled
from task_sets import SIZE, TASK_SETS, write

import densemble as de
from densemble.selection.baseline_filter import warn_about_baselines

EPOCHS = {"keypoints": 14, "density": 8}


@pytest.fixture(scope="module", params=sampled(list(TASK_SETS), ["multilabel"]))
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, de.FolderData, Any]:
    task, options, draw = TASK_SETS[request.param]
    out = tmp_path_factory.mktemp(request.param)
    data = de.FolderData(write(out / "data", draw, train=48), task, **options)
    epochs = EPOCHS.get(request.param, 4 if request.param == "multilabel" else 6)
    training = {"epochs": epochs, "batch_size": 8, "learning_rate": 3e-3, "precision": "fp32", "augment": "none"}
    out_size = None if task != "heatmap" else (24, 32)
    run = de.train(
        data,
        ["resdeconv"],
        out / "run",
        report=lambda line: None,
        input_size=SIZE,
        out_size=out_size,
        training=training,
    )
    return request.param, data, run


def test_member_beats_the_baselines_of_the_leaderboard(trained: tuple[str, de.FolderData, Any]) -> None:
    _, _, run = trained
    table = run.leaderboard()[run.task.primary]
    baselines = [value for name, value in table.items() if str(name).startswith("baseline")]
    assert baselines and table["resdeconv"] == table["resdeconv"]
    better = max if run.task.higher_is_better else min
    assert better([table["resdeconv"], *baselines]) == table["resdeconv"], table
    assert str(table.index[0]) in ("resdeconv", "ensemble (greedy)")


def test_artifact_gives_the_scores_of_the_run(trained: tuple[str, de.FolderData, Any]) -> None:
    _, data, run = trained
    ensemble = de.load(run.folder.artifact)
    scores = de.evaluate(ensemble, data, "val")
    # The temperature does not change these metrics; the ensemble was measured on stored maps of half the size.
    assert scores["members"]["resdeconv"][run.task.primary] == pytest.approx(
        run.trained()["resdeconv"]["val"][run.task.primary], rel=1e-3, abs=1e-4
    )
    assert scores[run.task.primary] == pytest.approx(ensemble.metrics["val"][run.task.primary], rel=0.05, abs=0.02)


def test_saved_predictions_match_the_task(trained: tuple[str, de.FolderData, Any], tmp_path: Path) -> None:
    name, data, run = trained
    ensemble = de.load(run.folder.artifact)
    sample = data.val[0]
    (prediction,) = de.predict(ensemble, sample.image)
    files = prediction.save(tmp_path, ("map", "overlay", "uncertainty", "npy"))
    assert [file.name for file in files[-3:]] == ["000_overlay.png", "000_uncertainty.png", "000.npy"]
    assert (len(files) == 5) == (files[0].suffix == ".tif")  # beside a map that viewers may not show, a view
    maps = np.load(files[-1])
    assert maps.shape == (ensemble.task.out_channels, *SIZE) and np.isfinite(maps).all()
    target = data.read_target(sample)
    if name == "segmentation":
        assert set(np.unique(Image.open(files[0]))) <= {0, 1, 2}
    elif name == "depth":
        np.testing.assert_allclose(tifffile.imread(files[0]), maps[0])  # PNG cannot store fractions of metres
        assert abs(np.median(maps[0]) - np.median(target[target > 0])) < 1.0
    elif name == "density":
        assert files[0].suffix == ".tif" and tifffile.imread(files[0]).sum() == pytest.approx(maps.sum(), rel=1e-4)
        assert abs(maps.sum() - target.sum()) < 5
    elif name == "image":
        assert np.asarray(Image.open(files[0])).shape == (*SIZE, 3)
    else:
        assert tifffile.imread(files[0]).shape == maps.shape
    overlay = np.asarray(Image.open(files[-3]))  # its legend is below the image
    np.testing.assert_array_equal(overlay[: SIZE[0], : SIZE[1]], prediction.overlay())


@pytest.mark.parametrize("level", ["below", "equal", "above"])
def test_warning_if_the_ensemble_is_no_better_than_a_baseline(
    level: str, trained: tuple[str, de.FolderData, Any], lines: list[str]
) -> None:
    """The warning names exactly the baselines that the scores do not exceed."""
    _, _, run = trained
    metric, sign = run.task.primary, 1.0 if run.task.higher_is_better else -1.0
    baselines = {name: scores[metric] for name, scores in run.baselines().items() if scores.get(metric) is not None}
    strongest = max(baselines.values(), key=lambda value: sign * value)
    score = strongest + sign * {"below": -1e-3, "equal": 0, "above": 1e-3}[level]
    warn_about_baselines(run.task, run.baselines(), {metric: score})
    named = {name for name in baselines if any(f"no better than the baseline '{name}'" in line for line in lines)}
    if level == "above":
        assert lines == []
    else:
        assert {name for name, value in baselines.items() if value == strongest} <= named


def test_points_are_read_before_the_task_is_used(tmp_path: Path) -> None:
    task, options, draw = TASK_SETS["keypoints"]
    data = de.FolderData(write(tmp_path / "data", draw, 2, 1), task, **options)
    assert data.read_target(data.train[0]).shape == (2, *SIZE)
