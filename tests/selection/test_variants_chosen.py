"""Views, snapshots and soups are candidates like members, from the command line to a prediction."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from selection.written_runs import NAMES, Written

from densemble.ensemble.member_views import ViewedMember
from densemble.evaluation.scores import evaluate
from densemble.storage.artifact import describe, load
from densemble.storage.runs import read_json

Command = Callable[..., Any]


@pytest.fixture
def run(fresh: Callable[[str], Written]) -> Written:
    """A run with equal members ``one`` and ``two``, so that their soup is as good; ``one`` has a snapshot."""
    run = fresh("segmentation")
    for name in ("weights.safetensors", "val_predictions.npy"):
        shutil.copy(run.folder("one") / name, run.folder("two") / name)
    record = read_json(run.folder("one") / "member.json") | {"name": "two"}
    (run.folder("two") / "member.json").write_text(json.dumps(record))
    snapshots = run.folder("one") / "snapshots"
    snapshots.mkdir()
    shutil.copy(run.folder("three") / "weights.safetensors", snapshots / "1.safetensors")
    return run


@pytest.mark.slow
def test_variants_from_the_command_line_to_a_prediction(run: Written, tmp_path: Path, densemble: Command) -> None:
    artifact = tmp_path / "e.safetensors"
    made = ("--views", "hflip, scale125", "--snapshots", "--soups")
    done = densemble("assemble", run.path, "-o", artifact, *made, "--select", "all", "--calibrate", "none")
    assert done.returncode == 0, done.stderr
    variants = {f"{name}@{view}" for name in NAMES for view in ("hflip", "scale125")} | {"one-epoch1", "soup-one"}
    rows = json.loads(densemble("leaderboard", run.path, "--json").stdout)["leaderboard"]
    assert {row["name"] for row in rows} == {*NAMES, *variants, "ensemble (all)", "ensemble (all), cross-fitted"}
    parameters = {row["name"]: row["parameters"] for row in rows}
    assert parameters["ensemble (all)"] == 5 * parameters["one"]  # a view is no network of its own
    kinds = {row["name"]: row["kind"] for row in read_json(run.path / "analysis.json")["members"]}
    assert {kinds[name] for name in variants} == {"view", "snapshot", "soup"} and kinds["one"] == "member"
    # Eleven members, six of which look through views at what another one's network shows.
    ensemble = load(artifact)
    assert set(ensemble.members) == {*NAMES, *variants}
    holders = {name.split("/")[0] for name in describe(artifact)["sha256"]}
    assert holders == {*NAMES, "one-epoch1", "soup-one"}
    measured = evaluate(ensemble, run.data, "val")
    assert measured["nll"] == pytest.approx(ensemble.metrics["val"]["nll"], abs=5e-3)
    for name, own in ensemble.metrics["members"].items():
        assert measured["members"][name]["nll"] == pytest.approx(own["nll"], abs=5e-3), name


@pytest.mark.slow
def test_a_single_flipped_view_predicts_as_its_network_on_the_flipped_image(
    run: Written, tmp_path: Path, densemble: Command
) -> None:
    artifact, out = tmp_path / "e.safetensors", tmp_path / "out"
    chosen = ("--views", "hflip", "--select", "three@hflip", "--calibrate", "none")
    assert densemble("assemble", run.path, "-o", artifact, *chosen).returncode == 0
    ensemble = load(artifact)
    assert list(ensemble.members) == ["three@hflip"] and isinstance(ensemble.members["three@hflip"], ViewedMember)
    image = run.data.val[0].image
    mirrored = tmp_path / "mirrored.png"
    Image.open(image).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(mirrored)
    plain = tmp_path / "plain.safetensors"
    chosen = ("--select", "three", "--calibrate", "none")
    assert densemble("assemble", run.path, "-o", plain, *chosen).returncode == 0
    assert densemble("predict", artifact, image, "-o", out, "--save", "npy").returncode == 0
    assert densemble("predict", plain, mirrored, "-o", out, "--save", "npy").returncode == 0
    seen, in_mirror = np.load(out / f"{image.stem}.npy"), np.load(out / "mirrored.npy")
    np.testing.assert_allclose(seen, in_mirror[..., ::-1], atol=1e-4)


@pytest.mark.slow
def test_views_of_a_damaged_member_are_dropped(run: Written, tmp_path: Path, densemble: Command) -> None:
    artifact = tmp_path / "e.safetensors"
    run.run.add_views(["vflip"])
    (run.folder("three") / "weights.safetensors").unlink()
    done = densemble("assemble", run.path, "-o", artifact, "--select", "all")
    assert done.returncode == 5 and "2 of the members could not be used" in done.stderr
    assert set(load(artifact).members) == {"one", "two", "one@vflip", "two@vflip"}
    missing = densemble("assemble", run.path, "-o", artifact, "--views", "hflop")
    assert missing.returncode == 2 and "did you mean 'hflip'" in missing.stderr
