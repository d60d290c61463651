"""A damaged file of a run or of the cache costs only itself: no traceback, and the rest of the work is done."""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import densemble as de
from densemble.data.folder import FolderData
from densemble.engines.data_check import require_sound
from densemble.errors import DensembleError
from densemble.inference.runtime.choose_backend import Choice
from densemble.inference.runtime.remembered_choices import recall, remember
from densemble.storage.run_records import member_state
from densemble.storage.runs import RunFolder

WRITTEN = Path(__file__).parents[1] / "written_before"
JSON_FILES = (
    "run.json", "ensemble.json", "analysis.json", "baselines.json", "milliseconds.json", "data_digests.json",
    "data_report.json", "members/01-stem/member.json", "members/02-stage/member.json",
    "variants/stem@hflip/variant.json",
)  # fmt: skip
OTHER_FILES = (
    "run.yaml", "members/01-stem/val_predictions.npy", "members/01-stem/weights.safetensors", "mean_map.npy",
    "members/01-stem/metrics.csv", "leaderboard.csv", "ensemble.safetensors",
)  # fmt: skip
NOISE = (
    b"", b"{", b"[]", b"null", b"{}", b"\xff\xfe\x00", b'{"a": 1, "a": 2}', b"[" * 100_000, b'{"x": NaN}',
    b'{"x": ' + b"9" * 5000 + b"}", b"\xef\xbb\xbf{}",
)  # fmt: skip
HOSTILE: tuple[Any, ...] = (None, True, -1, 1e300, 2**62, "", "x", "../../x", [], [1], {}, {"a": {}}, "\x1b[2J" * 100)
"""Values that replace one value of a JSON file."""


SCORE = {"value": 0.8, "low": 0.7, "high": 0.9}
GAINS = {"gain_over_best": SCORE, "gain_over_all": SCORE, "gain_over_mean": SCORE}
ROW = {"name": "greedy", "score": 0.8, "low": 0.7, "high": 0.9, "members": 2.0, "milliseconds": 1.0, **GAINS}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the files of an assembly and a variant."""
    run = tmp_path_factory.mktemp("finished") / "run"
    shutil.copytree(WRITTEN / "run", run)
    state, member = (json.loads((run / name).read_text()) for name in ("run.json", "members/01-stem/member.json"))
    gain = dict.fromkeys(("total", "selection", "calibration"), SCORE)
    crossed = {"folds": "2 folds", "score": SCORE, "scores": {"miou": 0.8}, "gain": gain, "best_member": "stem"}
    chosen = {
        "select": "all", "combine": "mean", "metric": "miou", "weights": {"stem": 0.5, "stage": 0.5}, "dropped": [],
        "val": member["val"], "milliseconds": 2.0, "temperatures": {"stem": 1.0, "stage": 1.0}, "calibration": None,
        "guarantee": None, "cascade": None, "cross_fitted": crossed,
    }  # fmt: skip
    analysis = {
        "metric": "miou", "higher_is_better": True, "pictures": 8, "chosen": chosen, "dropped": [], "rules": [ROW],
        "strategies": [ROW], "cross_fitted": crossed, "baselines": [{"name": "mean map", "score": 0.3}], "pareto": [],
    }  # fmt: skip
    variant = {"kind": "view", "of": "stem", "view": "hflip", "weights": "members/01-stem/weights.safetensors"}
    (run / "variants" / "stem@hflip").mkdir(parents=True)
    for name, values in {
        "run.json": {**state, "data": str(WRITTEN / "data")},
        "ensemble.json": chosen,
        "analysis.json": analysis,
        "variants/stem@hflip/variant.json": {**variant, "from": ["stem"], "val": member["val"]},
        "milliseconds.json": {"machine": "x", "rounds": 2, "milliseconds": {"stem": 1.0, "stage": 1.0}},
    }.items():
        (run / name).write_text(json.dumps(values))
    np.save(run / "mean_map.npy", np.zeros((3, 16, 24), np.float32))
    (run / "leaderboard.csv").write_text("name,miou\nstem,0.8\n")
    shutil.copy(WRITTEN / "all.safetensors", run / "ensemble.safetensors")
    return run


def leaves(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if way:
        yield way
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in list(items)[:12]:
        yield from leaves(child, (*way, key))


def changed(file: Path, seed: int) -> bytes:
    """The content of a JSON file with one value replaced or removed."""
    draw, values = random.Random(seed), json.loads(file.read_text())
    *parents, last = draw.choice(list(leaves(values)))
    node = values
    for key in parents:
        node = node[key]
    if draw.random() < 0.2:
        del node[last]
    else:
        node[last] = draw.choice(HOSTILE)
    return json.dumps(values).encode()


def flipped(file: Path, seed: int) -> bytes:
    draw, content = random.Random(seed), bytearray(file.read_bytes())
    kind = draw.randrange(3)
    if kind == 0:
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    elif kind == 1:
        del content[draw.randrange(len(content)) :]
    else:
        start = draw.randrange(len(content))
        content[start : start + 40] = bytes(draw.randrange(256) for _ in range(40))
    return bytes(content)


def damages(run: Path) -> list[tuple[str, str, bytes]]:
    """A name, the file and its new content of 240 damages."""
    cases = []
    for file in JSON_FILES:
        cases += [(f"{file} {number}", file, changed(run / file, number)) for number in range(12)]
        cases += [(f"{file} {noise[:10]!r}", file, noise) for noise in random.Random(file).sample(NOISE, 5)]
    for file in OTHER_FILES:
        cases += [(f"{file} flip {number}", file, flipped(run / file, number)) for number in range(8)]
        cases += [(f"{file} {noise[:10]!r}", file, noise) for noise in NOISE[:2]]
    return cases


def html(run: Path) -> None:
    de.Run(run)._repr_html_()


@pytest.mark.parametrize(
    "command",
    [
        "leaderboard",
        "predict",
        "card",
        *(pytest.param(name, marks=pytest.mark.stress) for name in ("assemble", "train")),
    ],
)
def test_files_of_a_run(
    command: str, finished: Path, tmp_path: Path, drawn: Callable[..., list[Any]], report: Any,
    densemble: Callable[..., Any], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    image, run, data = next((WRITTEN / "data" / "val" / "images").iterdir()), tmp_path / "run", WRITTEN / "data"
    words: dict[str, list[Any]] = {
        "leaderboard": ["leaderboard", run],
        "assemble": ["assemble", run, "-o", "a.safetensors", "--data", data, "--select", "all", "--calibrate", "none"],
        "predict": ["predict", run, image, "-o", "out", "--backend", "eager"],
        "card": ["card", run, "--run", run],
        "train": ["train", data, "-o", run, "--resume", "--quiet"],
    }
    cases = drawn(damages(finished), seed=len(command))
    every = {"predict": 8, "card": 3, "assemble": 6, "train": 6}  # some read few of the files, some take seconds
    cases = cases[:: every.get(command, 1)]
    problems = []
    for name, file, content in cases:
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(finished, run)
        (run / file).write_bytes(content)
        try:
            done = densemble(*words[command])
            if command == "leaderboard":
                html(run)
        except DensembleError:
            continue
        except Exception as error:
            problems.append(f"{name}: {type(error).__name__} {error}")
            continue
        text = done.stderr[-300:]
        member = file.startswith(("members/", "variants/"))
        if done.returncode not in ((0, 5) if member and command == "leaderboard" else (0, 2, 4, 5, 6)):
            problems.append(f"{name}: exit {done.returncode} {text}")
        elif done.returncode in (2, 4, 6) and not ("'" in text and ("; " in text or ": " in text)):
            problems.append(f"{name}: no file or remedy in {text}")
    report(cases=len(cases), problems=problems)


CHOICE = {"backend": "eager", "precision": "fp32", "seconds": {"eager fp32": 0.1}, "error": 0.0, "refused": {}}


def test_json_files_of_the_cache(
    tmp_path: Path, drawn: Callable[..., list[Any]], report: Any, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    """A damaged entry is a miss with one line, and is written again."""
    monkeypatch.setenv("DENSEMBLE_CACHE_DIR", str(tmp_path))
    remember("key", Choice("eager", "fp32", {"eager fp32": 0.1}, 0.0, {}))
    require_sound(FolderData(WRITTEN / "data", "segmentation"))
    (choice,), (check,) = (tmp_path / "choices").iterdir(), (tmp_path / "checks").iterdir()
    cases = [
        (file, f"{kind} {n}", make(file, n)) for file in (choice, check) for kind, make in KINDS for n in range(12)
    ]
    cases += [(file, repr(noise[:9]), noise) for file in (choice, check) for noise in NOISE]
    cases, problems = drawn(cases), []
    for file, name, content in cases:
        before = file.read_bytes()
        file.write_bytes(content)
        lines.clear()
        try:
            if file == choice:
                recall("key")
            else:
                require_sound(FolderData(WRITTEN / "data", "segmentation"))
                json.loads(file.read_text())
        except Exception as error:
            problems.append(f"{file.parent.name} {name}: {type(error).__name__} {error}")
        if sum("is damaged" in line or "cannot read" in line for line in lines) > 1:
            problems.append(f"{file.parent.name} {name}: {lines}")
        file.write_bytes(before)
    report(cases=len(cases), problems=problems)


KINDS: tuple[tuple[str, Callable[[Path, int], bytes]], ...] = (("value", changed), ("flip", flipped))


@pytest.mark.stress
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_converted_networks_of_the_cache(
    backend: str, tmp_path: Path, report: Any, densemble: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(backend)
    monkeypatch.setenv("DENSEMBLE_CACHE_DIR", str(tmp_path / "cache"))
    image = next((WRITTEN / "data" / "val" / "images").iterdir())
    command = ["predict", WRITTEN / "all.safetensors", image, "-o", tmp_path / "out", "--again", "--backend", backend]
    assert densemble(*command).returncode == 0
    files = sorted(file for file in (tmp_path / "cache").rglob("*") if file.is_file())
    problems, count = [], 0
    for file in files:
        for content in (b"", b"{", flipped(file, 0), flipped(file, 1), flipped(file, 2), b"\0" * 1000):
            before, count = file.read_bytes(), count + 1
            file.write_bytes(content)
            try:
                done = densemble(*command)
                if done.returncode != 0:
                    problems.append(f"{file.name}: exit {done.returncode} {done.stderr[-300:]}")
            except Exception as error:
                problems.append(f"{file.name} {content[:9]!r}: {type(error).__name__} {error}")
            file.write_bytes(before)
    report(cases=count, problems=problems, note=backend)


def test_a_damaged_choice_is_measured_and_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    monkeypatch.setenv("DENSEMBLE_CACHE_DIR", str(tmp_path))
    file = tmp_path / "choices" / "k.json"
    file.parent.mkdir()
    assert recall("k") is None and lines == []
    for values in (
        "{",
        "[]",
        {**CHOICE, "seconds": {}},
        {**CHOICE, "backend": "x"},
        {**CHOICE, "seconds": {"eager fp32": 0}},
    ):
        file.write_text(values if isinstance(values, str) else json.dumps(values))
        lines.clear()
        assert recall("k") is None
        (line,) = lines
        assert str(file) in line and "measured again" in line
    file.write_text(json.dumps(CHOICE))
    choice = recall("k")
    assert choice is not None and choice.backend == "eager"
    remember("k", choice)
    assert recall("k") == choice


def test_a_member_with_a_damaged_record_is_trained_again_and_the_others_are_kept(
    finished: Path, tmp_path: Path
) -> None:
    run = RunFolder(shutil.copytree(finished, tmp_path / "run"))
    (run.path / "members" / "01-stem" / "member.json").write_text('{"state": "done"}')
    assert [member_state(run.member(number, name)) for number, name in enumerate(("stem", "stage"))] == [
        "damaged",
        "done",
    ]
    assert list(de.Run(run.path).trained()) == ["stage"]
