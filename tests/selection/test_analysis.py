"""Every assembly writes an analysis in strict JSON and a report, for every task and for minimal runs."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sampled import sampled
from selection.written_runs import NAMES, Written, write_run
from task_sets import SIZE, TASK_SETS

from densemble.errors import DataError
from densemble.storage.runs import read_json

Fresh = Callable[[str], Written]
ALWAYS = {
    "run", "made", "task", "metric", "higher_is_better", "pictures", "map_size", "chosen", "dropped", "members",
    "baselines", "rules", "error_correlation", "disagreement", "curves",
}  # fmt: skip
COMPARED = {"strategies", "pareto"}
CROSSED = {"cross_fitted"}
OF_TASK = {
    "segmentation": {"per_class", "confusion", "calibration", "risk_coverage"},
    "multilabel": {"per_class", "calibration", "risk_coverage"},
    "depth": {"calibration", "risk_coverage"},
}


def left_behind(run: Written) -> dict[str, Any]:
    """Read the analysis as strict JSON and check that the report contains its numbers."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    result: dict[str, Any] = json.loads((run.path / "analysis.json").read_text(), parse_constant=refuse)
    page = re.sub(r"base64,[^\"]*", "", (run.path / "report.html").read_text())
    assert all(name in page for name in result["error_correlation"]["names"])
    assert not re.search(r"\bnan\b", page, re.IGNORECASE)
    assert (run.path / "leaderboard.csv").is_file()
    return result


@pytest.mark.parametrize("kind", sampled(["saliency", *TASK_SETS], ["segmentation"]))
def test_every_task_is_analysed_and_reported(kind: str, fresh: Fresh) -> None:
    run = fresh(kind)
    ensemble = run.run.assemble("all")
    result = left_behind(run)
    assert set(result) == ALWAYS | COMPARED | CROSSED | OF_TASK.get(kind, set())
    assert result["pictures"] == 8 and result["map_size"] == [12, 16] and result["metric"] == run.task.primary
    assert result["chosen"] == read_json(run.path / "ensemble.json")
    assert result["chosen"]["val"] == ensemble.metrics["val"] and result["chosen"]["dropped"] == []
    assert [row["name"] for row in result["strategies"]] == ["greedy", "best", "all"]
    rows = {row["name"]: row for row in result["members"]}
    assert list(rows) == list(NAMES)
    for name, row in rows.items():
        assert row["share"] == pytest.approx(1 / 3) and row["milliseconds"] > 0 and row["state"] == "done"
        assert row["score"] == pytest.approx(run.run.trained()[name]["val"][run.task.primary])
    matrix = np.array(result["error_correlation"]["matrix"], float)
    np.testing.assert_allclose(matrix, matrix.T)
    assert sorted(row["number"] for row in result["disagreement"]) == list(range(8))
    assert all(row["picture"] == run.data.val[row["number"]].stem for row in result["disagreement"])
    if kind == "segmentation":
        counted = [np.bincount(target[target != 255].flatten(), minlength=3) for target in run.targets()]
        np.testing.assert_array_equal(np.sum(result["confusion"], 1), np.sum(counted, 0))
    # A validation loss that is not finite is left out.
    assert result["curves"]["one"] == [
        {"epoch": 1, "train_loss": 2, "val_loss": 2.5}, {"epoch": 2, "train_loss": 1},
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["segmentation", "depth"])
def test_one_member_is_enough(kind: str, tmp_path: Path) -> None:
    run = write_run(tmp_path, kind, members=1)
    ensemble = run.run.assemble("greedy", "auto")
    assert list(ensemble.members) == ["one"] and ensemble.combine == "mean"
    result = left_behind(run)
    assert set(result) == ALWAYS | CROSSED | OF_TASK[kind] and result["rules"] == []
    assert result["members"][0]["leave_one_out"] is None


@pytest.mark.parametrize(
    ("kind", "images"),
    sampled(
        [("segmentation", 1), ("segmentation", 2), ("segmentation", 3), ("depth", 1), ("depth", 2)],
        [("segmentation", 1), ("depth", 2)],
    ),
)
def test_few_images_are_enough(kind: str, images: int, tmp_path: Path) -> None:
    run = write_run(tmp_path, kind, images=images)
    run.run.assemble("all", "auto")
    result = left_behind(run)
    assert set(result) == ALWAYS | ({"per_class", "confusion"} if kind == "segmentation" else set())
    assert result["rules"] == [] and len(result["disagreement"]) == images


@pytest.mark.parametrize(("known", "whole"), [pytest.param(2, True, marks=pytest.mark.slow), (1, False)])
def test_images_without_known_target(known: int, whole: bool, tmp_path: Path) -> None:
    run, lines = write_run(tmp_path, "segmentation", images=5), []
    for sample in run.data.val[known:]:
        ignored = Image.fromarray(np.full(SIZE, 255, np.uint8))
        ignored.save(run.data.path / "val" / "targets" / f"{sample.stem}.png")
    run.run.assemble("all", "auto", report=lines.append)
    result = left_behind(run)
    sections = OF_TASK["segmentation"] | COMPARED | CROSSED if whole else {"per_class", "confusion", "pareto"}
    assert set(result) == ALWAYS | sections
    assert whole != any("not cross-fitted: too few images" in line for line in lines)
    # Images 1 and 3 are for the guarantee; it needs one with a known target.
    if whole:
        assert run.run.assemble("greedy", guarantee="set", level=0.5).guarantee.images == 1
        return
    with pytest.raises(DataError, match=r"cannot be guaranteed from 0 held-out images"):
        run.run.assemble("greedy", guarantee="set", level=0.5)


def test_a_single_image_cannot_be_halved_for_a_guarantee(tmp_path: Path) -> None:
    run = write_run(tmp_path, "segmentation", images=1)
    with pytest.raises(DataError, match=r"cannot be guaranteed from 0 held-out images .*: at least 9 are needed"):
        run.run.assemble("all", guarantee="set")


def test_leaderboard_lists_strategies_and_rules(fresh: Fresh, densemble: Callable[..., Any]) -> None:
    run = fresh("segmentation")
    run.run.assemble("all", "logits")
    result = left_behind(run)
    printed = json.loads(densemble("leaderboard", run.path, "--json").stdout)
    assert set(printed) == {"run", "leaderboard", "cross_fitted", "strategies", "rules", "pareto"}
    assert all(printed[key] == result[key] for key in ("cross_fitted", "strategies", "rules", "pareto"))
    ensembles = {"ensemble (all, logits)", "ensemble (all, logits), cross-fitted"}
    assert {row["name"] for row in printed["leaderboard"]} == {*NAMES, *ensembles}
    shown = densemble("leaderboard", run.path).stdout
    assert "strategies, cross-fitted (2 folds of contiguous blocks" in shown and "rules, cross-fitted" in shown
    for word in ("greedy", "best", "all", "stacking", "vote", "over best"):
        assert word in shown
