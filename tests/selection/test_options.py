"""Options of an assembly: valid combinations pass, others raise an error that names the valid ones."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from selection.written_runs import Written

from densemble.errors import UsageError
from densemble.selection.options import CALIBRATE, GUARANTEE, Options, calibrations_for
from densemble.tasks import DepthTask, HeatmapTask, ImageTask, MultilabelTask, SaliencyTask, SegmentationTask, Task

TASKS: dict[str, Task] = {
    "segmentation": SegmentationTask(("a", "b")),
    "multilabel": MultilabelTask(("a", "b")),
    "depth": DepthTask(),
    "saliency": SaliencyTask(),
    "image": ImageTask(),
    "heatmap": HeatmapTask(("a",)),
}

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    (
        "segmentation",
        {"metric": "mui"},
        r"no metric of segmentation is named 'mui'; did you mean 'miou'\? there are",
    ),
    ("saliency", {"metric": "miou"}, "no metric of saliency is named 'miou'; there are: cc"),
    ("segmentation", {"combine": "men"}, "no combination rule is named 'men'; did you mean 'mean'.* there are: mean"),
    ("saliency", {"combine": "vote"}, "'vote' does not suit saliency"),
    ("depth", {"combine": "logits"}, "'logits' does not suit depth.*inverse_variance"),
    ("depth", {"calibrate": "vector"}, "--calibrate vector does not suit depth; there are: auto, variance, none"),
    (
        "segmentation",
        {"calibrate": "variance"},
        "does not suit segmentation; there are: auto, temperature, vector, none",
    ),
    ("saliency", {"calibrate": "temperature"}, "does not suit saliency; there are: auto, none"),
    ("saliency", {"calibrate": "platt"}, "--calibrate platt is not a calibration method of saliency"),
    ("multilabel", {"guarantee": "set"}, "--guarantee set does not suit multilabel; there are: none, risk"),
    ("depth", {"guarantee": "risk"}, "--guarantee risk does not suit depth; there are: none, interval"),
    ("segmentation", {"guarantee": "interval"}, "does not suit segmentation; there are: none, set, risk"),
    ("image", {"guarantee": "set"}, "does not suit image; there are: none$"),
    ("image", {"guarantee": "everything"}, "--guarantee everything is not a guarantee of image"),
    *[("segmentation", {"level": level}, "level .* must lie between 0 and 1") for level in (0, 1, -0.1, math.nan)],
    *[("segmentation", {"confidence": value}, "confidence .* must lie between 0 and 1") for value in (0, 1.0, 2)],
    ("segmentation", {"min_members": 0}, "--min-members 0: an ensemble has at least 1 member"),
    *[("segmentation", {"budget": budget}, "give milliseconds per image") for budget in (0, -3, math.inf, math.nan)],
    *[
        ("segmentation", {"budget": 5, "select": select}, f"--budget needs --select greedy.*'{select}'")
        for select in ("all", "best", "exhaustive", "one,two")
    ],
    *[
        ("segmentation", {"weights": (1.0, 2.0), "select": select}, f"--select {select} computes the weights")
        for select in ("greedy", "best", "exhaustive")
    ],
    *[("segmentation", {"select": select}, "names no member; .*greedy, best, all") for select in ("", " ", ", ,")],
    ("segmentation", {"select": "one, two,one"}, "names 'one' twice"),
]


@pytest.mark.parametrize(("task", "options", "message"), REFUSED)
def test_invalid_options_raise_an_error_with_the_valid_ones(task: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Options(**options).require(TASKS[task])


@pytest.mark.parametrize("name", list(TASKS))
def test_valid_options_pass(name: str) -> None:
    task = TASKS[name]
    Options().require(task)
    Options(combine="auto", weights=(1.0, 2.0), select="one,two").require(task)
    Options(weights=(1.0, 2.0), select="all", min_members=2).require(task)
    Options(budget=0.5).require(task)
    able = set(calibrations_for(task))
    assert able <= set(CALIBRATE) and "none" in able
    for method in CALIBRATE:
        if method in able or method == "auto":
            Options(calibrate=method).require(task)
        else:
            with pytest.raises(UsageError):
                Options(calibrate=method).require(task)
    taken = []
    for guarantee in GUARANTEE:
        try:
            Options(guarantee=guarantee).require(task)
        except UsageError:
            continue
        taken.append(guarantee)
    expected = {"labels": ["none", "set", "risk"], "masks": ["none", "risk"], "values": ["none", "interval"]}
    assert taken == expected.get(task.target_kind, ["none"])


def test_named_candidates() -> None:
    assert Options(select=" one , two@hflip,").named == ("one", "two@hflip")
    for strategy in ("greedy", "best", "all", "exhaustive"):
        assert Options(select=strategy).named == ()


@pytest.mark.parametrize(
    "words",
    [
        ("--combine", "men"),
        ("--metric", "miou"),
        ("--calibrate", "vector"),
        ("--guarantee", "set"),
        ("--level", "1.5"),
        ("--budget", "-1"),
        ("--select", "one,four"),
        ("--select", ""),
        ("--select", "one,two", "--weights", "1,two"),
        ("--select", "one,two", "--weights", "1,2,3"),
        ("--views", "upside-down"),
        ("--min-members", "0"),
    ],
)
def test_command_reports_invalid_options_in_one_line(
    words: tuple[str, ...], fresh: Callable[[str], Written], densemble: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "e.safetensors"
    done = densemble("assemble", fresh("saliency").path, "-o", out, *words)
    assert done.returncode == 2 and done.stdout == "" and not out.exists()
    assert done.stderr.splitlines()[-1].startswith("densemble: ") and "Traceback" not in done.stderr


def test_default_level_and_confidence() -> None:
    assert (Options().level, Options().confidence) == (0.1, 0.95)
