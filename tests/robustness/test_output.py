"""Closed and full output streams stop no work, and names of files control neither terminals nor spreadsheets."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from robustness.small_runs import Undisturbed, differences

Forked = Callable[[], Any]
BROKEN_PIPE = """
import os, sys
read, write = os.pipe()
os.close(read)
os.dup2(write, 1)
sys.argv = ["densemble", *ARGUMENTS]
from densemble.cli import main
main()
"""


@pytest.mark.parametrize(
    "streams",
    [
        {"stderr": "/dev/full"},
        {"stderr": "closed"},
        {"stdout": "/dev/full", "stderr": "/dev/full"},
        {"stdout": "closed"},
    ],
    ids=str,
)
def test_streams_that_fail_stop_no_prediction(
    streams: dict[str, str], forked: Forked, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    with forked() as space:
        done = space.run(*undisturbed.predict(tmp_path), **streams)
    assert done.code == 0 and not done.traceback, done.stderr
    assert done.stdout == "", "messages are not for stdout"
    assert differences(tmp_path, undisturbed.predictions) == []


def test_a_full_stderr_stops_no_training(forked: Forked, undisturbed: Undisturbed, tmp_path: Path) -> None:
    with forked() as space:
        done = space.run(*undisturbed.train(tmp_path / "run"), stderr="/dev/full")
    assert done.code == 0
    assert differences(tmp_path / "run", undisturbed.run) == []


@pytest.mark.parametrize("stdout", ["/dev/full", "closed"])
def test_a_result_that_is_lost_is_an_error(
    stdout: str, forked: Forked, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    with forked() as space:
        for arguments in (["leaderboard", undisturbed.run, "--json"], ["leaderboard", undisturbed.run]):
            done = space.run(*arguments, stdout=stdout)
            assert done.code == 6 and "cannot write the result to stdout: " in done.stderr and not done.traceback
        done = space.run(*undisturbed.predict(tmp_path), "--json", stdout=stdout)
        assert done.code == 6 and differences(tmp_path, undisturbed.predictions) == [], "the work is done"
        assert space.run("leaderboard", undisturbed.run, stdout=stdout, stderr="closed").code == 6


def test_a_reader_may_stop_reading(forked: Forked, undisturbed: Undisturbed, tmp_path: Path) -> None:
    with forked() as space:
        for arguments in (["leaderboard", undisturbed.run], [*undisturbed.predict(tmp_path), "--json"]):
            code = BROKEN_PIPE.replace("ARGUMENTS", repr([str(argument) for argument in arguments]))
            done = space.run(code=code)
            assert done.code == 0 and not done.traceback, done.stderr
    assert differences(tmp_path, undisturbed.predictions) == []


def test_names_of_files(forked: Forked, undisturbed: Undisturbed, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    names = ["=1+2.jpg", "-3.jpg", "a\x1b[31m\x1b]0;title\x07.jpg", "gpj.\u202egnp.jpg"]
    for name, image in zip(names, sorted(undisturbed.images.iterdir()), strict=True):
        shutil.copy(image, photos / name)
    (photos / "damaged\x1b[2J.jpg").write_bytes(b"\xff\xd8\xff")
    with forked() as space:
        done = space.run(
            "predict", undisturbed.artifact, ".", "-o", tmp_path / "out", "--save", "csv", "--rank-by", "variance",
            cwd=str(photos),
        )  # fmt: skip
        shown = space.run("predict", undisturbed.artifact, ".", "-o", tmp_path / "out2", "--json", cwd=str(photos))
    assert done.code == 5 and r"damaged\x1b[2J.jpg" in done.stderr, done.stderr
    assert not {"\x1b", "\x07", "\u202e"} & set(done.stdout + done.stderr + shown.stdout)
    assert "damaged\x1b[2J.jpg" in json.loads(shown.stdout)["failed"][0], "JSON has the true names"
    with (tmp_path / "out" / "areas.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["image"] for row in rows} >= {"'=1+2.jpg", "'-3.jpg"}
    assert all(float(row["mean"]) >= 0 for row in rows)
    with (tmp_path / "out" / "ranking.csv").open(encoding="utf-8", newline="") as file:
        ranked = list(csv.DictReader(file))
    assert len(ranked) == 4 and all(float(row["variance"]) >= 0 for row in ranked)
    assert not any(row["picture"].startswith(("=", "-")) for row in ranked)


def test_the_longest_names_of_images(forked: Forked, undisturbed: Undisturbed, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    image = min(undisturbed.images.iterdir())
    for length in (200, 243, 251):  # of the stem; the last two leave no room for _overlay.png
        shutil.copy(image, photos / ("n" * length + ".jpg"))
    with forked() as space:
        done = space.run("predict", undisturbed.artifact, photos, "-o", tmp_path / "out", "--save", "overlay")
    assert done.code == 0 and "3 of 3 images predicted" in done.stderr, done.stderr
    assert len(list((tmp_path / "out").glob("*_overlay.png"))) == 3  # under a shortened name
