"""The commands `data check` and `data show`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.broken_sets import BROKEN
from data.good_sets import save, target_of, write_good
from PIL import Image

Command = Callable[..., Any]


def test_check_of_a_good_set(densemble: Command, tmp_path: Path) -> None:
    result = densemble("data", "check", write_good(tmp_path, "segmentation"), "--task", "segmentation")
    assert result.returncode == 0 and result.stderr == ""
    lines = result.stdout.splitlines()
    assert "segmentation, layout 'images + targets', split by folders" in lines[0]
    assert lines[2].split()[:3] == ["train", "4", "4"] and lines[-1] == "ok"


def test_check_lists_each_kind_of_problem_once_with_its_remedy(densemble: Command, tmp_path: Path) -> None:
    BROKEN["black and white"].spoil(write_good(tmp_path, "segmentation"))
    result = densemble("data", "check", tmp_path, "--task", "segmentation")
    assert result.returncode == 3 and "Traceback" not in result.stderr
    assert "error: 0/255 mask (6)" in result.stdout and "  and 1 more" in result.stdout
    assert result.stdout.count("remedy: make white class 1: --set 'data.label_map={255: 1}'") == 1
    assert result.stdout.splitlines()[-1] == "6 errors"
    repaired = densemble("data", "check", tmp_path, "--task", "segmentation", "--set", "data.label_map={255: 1}")
    assert repaired.returncode == 0, repaired.stdout


def test_json_lists_every_file(densemble: Command, tmp_path: Path) -> None:
    BROKEN["black and white"].spoil(write_good(tmp_path, "segmentation"))
    result = densemble("data", "check", tmp_path, "--json")
    facts = json.loads(result.stdout)
    assert result.returncode == 3 and len(facts["problems"]) == 6 and not facts["ok"]
    assert facts["task"] == "segmentation" and facts["guessed"]
    assert set(facts["problems"][0]) == {
        "kind", "file", "message", "remedy", "severity", "split", "pair", "partner",
    }  # fmt: skip


def test_missing_task_is_guessed(densemble: Command, tmp_path: Path) -> None:
    result = densemble("data", "check", write_good(tmp_path, "heatmap"))
    assert result.returncode == 0
    assert "task guessed as heatmap: tables of points; set it with --task" in result.stderr


def test_warnings_alone_exit_with_0(densemble: Command, tmp_path: Path) -> None:
    BROKEN["EXIF mirrored"].spoil(write_good(tmp_path, "segmentation"))
    result = densemble("data", "check", tmp_path, "--task", "segmentation")
    assert result.returncode == 0 and result.stdout.splitlines()[-1] == "ok, 1 warning"


def test_unpaired_files_are_an_error_until_they_are_skipped(densemble: Command, tmp_path: Path) -> None:
    BROKEN["map missing"].spoil(write_good(tmp_path, "segmentation"))
    assert densemble("data", "check", tmp_path, "--task", "segmentation").returncode == 3
    skipped = densemble("data", "check", tmp_path, "--task", "segmentation", "--set", "data.skip_unpaired=true")
    assert skipped.returncode == 0 and "warning: unpaired (1)" in skipped.stdout


def test_leave_out_and_page_are_written(densemble: Command, tmp_path: Path) -> None:
    folder = write_good(tmp_path / "set", "segmentation")
    BROKEN["mirrored in val"].spoil(folder)
    names, page = tmp_path / "leaks.txt", tmp_path / "page.html"
    result = densemble("data", "check", folder, "--task", "segmentation", "--leave-out", names, "--page", page)
    assert result.returncode == 3 and names.read_text() == "b\n"
    assert "wrote 1 names" in result.stderr and page.read_text().startswith("<!doctype html>")
    repaired = densemble("data", "check", folder, "--task", "segmentation", "--set", f"data.leave_out={names}")
    assert repaired.returncode == 0, repaired.stdout


def test_unwritable_outputs(densemble: Command, tmp_path: Path) -> None:
    folder = write_good(tmp_path / "set", "saliency")
    (tmp_path / "file").write_text("")
    for option in ("--leave-out", "--page"):
        result = densemble("data", "check", folder, "--task", "saliency", option, tmp_path / "file" / "out")
        assert result.returncode == 6 and "Traceback" not in result.stderr and "cannot write" in result.stderr


@pytest.mark.parametrize("options", [(), ("--augmented", "strong"), ("--split", "val", "--count", "1")])
def test_show_writes_a_png(options: tuple[str, ...], densemble: Command, tmp_path: Path) -> None:
    folder = write_good(tmp_path / "set", "depth")
    result = densemble("data", "show", folder, "--task", "depth", "-o", tmp_path / "p.png", *options)
    assert result.returncode == 0, result.stderr
    assert Image.open(tmp_path / "p.png").format == "PNG"


def test_show_reports_missing_split_unknown_augmentation_and_unequal_sizes(densemble: Command, tmp_path: Path) -> None:
    folder = write_good(tmp_path / "set", "segmentation")
    call = ("data", "show", folder, "--task", "segmentation", "-o", tmp_path / "p.png")
    missing = densemble(*call, "--split", "test")
    assert missing.returncode == 3 and "has no test images" in missing.stderr
    assert densemble(*call, "--augmented", "weak").returncode == 2
    save(target_of(folder, "a"), np.zeros((5, 5), np.uint8))
    broken = densemble(*call)
    assert broken.returncode == 3 and "must be equal" in broken.stderr and "Traceback" not in broken.stderr
