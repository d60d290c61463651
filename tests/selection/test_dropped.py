"""Unusable members are dropped and reported, the others share their weight; too few members are an error."""

import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selection.written_runs import IMAGES, Written, make_network

from densemble.errors import ArtifactError, UsageError
from densemble.selection.open_candidates import open_all
from densemble.selection.variants import find_candidates
from densemble.storage.arrays import write_npy
from densemble.storage.artifact import load
from densemble.storage.runs import read_json
from densemble.storage.weight_files import write_tensors

Fresh = Callable[[str], Written]


def npy(maps: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, maps)
    return file.getvalue()


def changed(path: Path, number: float) -> bytes:
    maps = np.load(path)
    maps[5, 0, 3, 4] = number
    return npy(maps)


def lose_maps(run: Written) -> None:
    run.maps("two").unlink()


def lose_weights(run: Written) -> None:
    (run.folder("two") / "weights.safetensors").unlink()


def spoil_weights(run: Written) -> None:
    path = run.folder("two") / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def other_weights(run: Written) -> None:
    path = run.folder("two") / "weights.safetensors"
    state = make_network(run.task, 0).state_dict()
    write_tensors(path, {name: tensor for name, tensor in state.items() if "logits" not in name})


def other_size(run: Written) -> None:
    write_npy(run.maps("two"), np.full((8, 1, 6, 8), 0.5, np.float16))


def with_maps(content: Callable[[Path], bytes]) -> Callable[[Written], None]:
    def spoil(run: Written) -> None:
        run.maps("two").write_bytes(content(run.maps("two")))

    return spoil


DAMAGES: dict[str, tuple[Callable[[Written], None], str]] = {
    "no predictions": (lose_maps, "cannot read its predictions.*No such file.*train it again"),
    "cut predictions": (with_maps(lambda path: path.read_bytes()[:-7]), "cannot read its predictions"),
    "empty predictions": (with_maps(lambda path: b""), "cannot read its predictions"),
    "foreign predictions": (with_maps(lambda path: b"no array" * 100), "cannot read its predictions"),
    "words": (with_maps(lambda path: npy(np.full((8, 1, 12, 16), "word"))), "instead of floats"),
    "numbers": (with_maps(lambda path: npy(np.ones((8, 1, 12, 16), np.uint8))), "uint8 .* instead of floats"),
    "NaN": (with_maps(lambda path: changed(path, np.nan)), "prediction of image 5 contains NaN or infinity"),
    "infinity": (with_maps(lambda path: changed(path, np.inf)), "prediction of image 5 contains NaN or infinity"),
    "fewer images": (
        with_maps(lambda path: npy(np.load(path)[:-1])),
        r"\(7, 1, 12, 16\) instead of floats \(8, 1, h, w\)",
    ),
    "more channels": (with_maps(lambda path: npy(np.repeat(np.load(path), 2, 1))), r"instead of floats \(8, 1, h, w\)"),
    "no pixels": (with_maps(lambda path: npy(np.load(path)[..., :0])), r"instead of floats \(8, 1, h, w\)"),
    "another size": (other_size, "kept maps are 6x8, those of the others 12x16"),
    "no weights": (lose_weights, "no weights at"),
    "cut weights": (spoil_weights, "cannot read weights"),
    "foreign weights": (other_weights, "the tensors do not fit the network"),
}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_unusable_candidates_are_dropped_with_a_reason(damage: str, fresh: Fresh) -> None:
    run = fresh("saliency")
    spoil, reason = DAMAGES[damage]
    spoil(run)
    candidates, maps, (dropped,) = open_all(find_candidates(run.run.folder, run.run.config), IMAGES, 1)
    assert [candidate.name for candidate in candidates] == ["one", "three"] and len(maps) == 2
    assert dropped.name == "two" and re.search(reason, dropped.reason), dropped.reason


def test_a_dropped_member_is_reported_everywhere(fresh: Fresh) -> None:
    run, lines = fresh("saliency"), []
    lose_maps(run)
    ensemble = run.run.assemble("all", report=lines.append)
    assert ensemble.weights == {"one": 0.5, "three": 0.5}
    (dropped,) = read_json(run.path / "ensemble.json")["dropped"]
    assert dropped["name"] == "two" and f"dropped: two: {dropped['reason']}" in lines
    assert read_json(run.path / "analysis.json")["dropped"] == [dropped]
    assert "cannot read its predictions" in (run.path / "report.html").read_text()
    with pytest.raises(UsageError, match="3 weights for 2 members"):
        run.run.assemble("all", weights=[1, 2, 3])


def test_too_few_usable_members_raise(fresh: Fresh) -> None:
    run = fresh("saliency")
    lose_maps(run)
    run.maps("three").write_bytes(b"")
    assert list(run.run.assemble("all", min_members=1).members) == ["one"]
    with pytest.raises(ArtifactError, match=r"1 usable member, at least 2 .*two: .*No such file.*three: .*cannot read"):
        run.run.assemble("all", min_members=2)
    run.maps("one").write_bytes(b"")
    with pytest.raises(ArtifactError, match="0 usable members, at least 1"):
        run.run.assemble()


def test_command_writes_a_partial_artifact(fresh: Fresh, densemble: Callable[..., Any], tmp_path: Path) -> None:
    run, out = fresh("saliency"), tmp_path / "gaze.safetensors"
    lose_maps(run)
    done = densemble("assemble", run.path, "-o", out, "--select", "all")
    assert done.returncode == 5 and done.stdout == ""
    assert "dropped: two: cannot read its predictions" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("densemble: 1 of the members could not be used")
    assert list(load(out).members) == ["one", "three"]
    rows = json.loads(densemble("leaderboard", run.path, "--json").stdout)
    assert [row["name"] for row in rows["dropped"]] == ["two"]
    out.unlink()
    refused = densemble("assemble", run.path, "-o", out, "--select", "all", "--min-members", 3)
    assert refused.returncode == 4 and "--min-members" in refused.stderr and not out.exists()


def test_a_dropped_member_cannot_be_named(fresh: Fresh) -> None:
    run = fresh("saliency")
    lose_maps(run)
    with pytest.raises(ArtifactError, match=r"'two' cannot be used: cannot read its predictions"):
        run.run.assemble("one,two")


@pytest.mark.parametrize("record", ["{", "[]", '{"state": "done"}', '{"state": "done", "spec": {}, "val": {}}'])
def test_a_member_with_a_damaged_record_is_dropped_with_the_remedy(record: str, fresh: Fresh) -> None:
    run = fresh("saliency")
    (run.folder("two") / "member.json").write_text(record)
    assert list(run.run.assemble("all").members) == ["one", "three"]
    (dropped,) = read_json(run.path / "analysis.json")["dropped"]
    assert dropped["name"] == "two" and re.search(r"02-two/member.json'.*", dropped["reason"])
    with pytest.raises(ArtifactError, match="2 usable members, at least 3"):
        run.run.assemble("all", min_members=3)
    shutil.rmtree(run.folder("two"))
    assert list(run.run.trained()) == ["one", "three"]
