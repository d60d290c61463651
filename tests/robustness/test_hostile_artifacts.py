"""Every artifact is loaded with the meaning of its description, or refused by an error of densemble: quickly, and with
little memory."""

import json
import random
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from robustness.hostile_artifacts import Signed, texts

import densemble as de
from densemble.ensemble.calibrate import VarianceScaling
from densemble.ensemble.cascade import Cascade, Check, Policy
from densemble.ensemble.guarantee import ConformalInterval
from densemble.ensemble.member_views import ViewedMember
from densemble.errors import ArtifactError, DensembleError
from densemble.nets.dense import DenseModel
from densemble.storage.artifact import holds
from densemble.tasks import TASKS

SEGMENTATION = Path(__file__).parents[1] / "written_before" / "all.safetensors"
CASES = 200
"""Changed descriptions of each artifact."""
SECONDS, BYTES = 20.0, 800 << 20
"""Limits of one case: one network is built, and predicts one image; the largest allowed input has 8192x8192 pixels."""


@pytest.fixture(scope="module")
def values_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact with a view that shares tensors, a cascade, an interval and a scaled variance."""
    torch.manual_seed(0)
    network = DenseModel(
        "timm/test_resnet", weights=None, head="upsample", out_size=(8, 12), input_size=(16, 24)
    ).eval()
    members = {"plain": network, "mirrored": ViewedMember(network, "hflip")}
    policies = tuple(
        Policy(names, "variance", threshold, cost, 0.1, 0.9, 0.8)
        for names, threshold, cost in ((("plain",), 0.0, 0.5), (("plain", "mirrored"), 0.1, 1.0))
    )
    cascade = Cascade("mae", False, 8, 0.1, {"plain": 0.5, "mirrored": 0.5}, policies, (Check("keep", 0.9, 0.5, 0.9),))
    ensemble = de.Ensemble(
        members, task=TASKS["depth"](unit="m"), calibration=VarianceScaling(1.5, 0.01), cascade=cascade,  # type: ignore[call-arg]
        guarantee=ConformalInterval(0.5, 0.1, 0.1, 8), reading={"bands": [0, 1, 2], "image_range": [0.0, 255.0]},
        metrics={"val": {"mae": 0.1}, "members": {"plain": {"mae": 0.2}}},
    )  # fmt: skip
    return de.save(ensemble, tmp_path_factory.mktemp("values") / "e.safetensors")


def problem_of(case: str, path: Path) -> str:
    """Load an artifact and predict with it; return what went wrong, or nothing."""
    started, before = time.monotonic(), peak_bytes()
    try:
        ensemble = de.load(path)
        if not holds(path, ensemble) and "weight" not in case and case != "reading=null":
            return f"{case}: loaded with another meaning"
        with torch.no_grad():
            ensemble.predict(torch.zeros(1, 3, 16, 24))
    except DensembleError as error:
        text = str(error)
        if not isinstance(error, ArtifactError) or not text.isprintable() or len(text) > 1000:
            return f"{case}: {type(error).__name__} {text[:200]!r}"
    except Exception as error:
        return f"{case}: {type(error).__name__} {error}"
    seconds, grown = time.monotonic() - started, peak_bytes() - before
    return f"{case}: {seconds:.1f} s, {grown >> 20} MiB" if seconds > SECONDS or grown > BYTES else ""


def peak_bytes() -> int:
    """Peak of the resident memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("kind", ["segmentation", "depth"])
def test_changed_and_signed_again(
    kind: str, values_artifact: Path, tmp_path: Path, drawn: Callable[..., list[Any]], report: Callable[..., None]
) -> None:
    original = Signed(SEGMENTATION if kind == "segmentation" else values_artifact)
    assert problem_of("unchanged", original.write(tmp_path / "e.safetensors", json.dumps(original.description))) == ""
    cases = drawn(random.Random(0).sample(sorted(texts(original.description).items()), CASES))
    problems = [problem_of(name, original.write(tmp_path / "e.safetensors", text)) for name, text in cases]
    report(cases=len(cases), problems=[problem for problem in problems if problem])


LIMITS = {
    "doublings": 30000, "in_channels": 2**31, "channels": 2**40, "multiple": 0, "fixed": [0, 0], "layouts": ["NLC/0+1"],
    "out_size": [10**6, 10**6], "input_size": [1, 2**31], "head": "x" * 10**6, "node": "\x1b[2J", "std": [0, 0, 0],
}  # fmt: skip


@pytest.mark.parametrize("key", LIMITS)
def test_values_that_would_build_something_huge(key: str, tmp_path: Path) -> None:
    original = Signed(SEGMENTATION)
    original.description["members"][0][key] = LIMITS[key]
    path = original.write(tmp_path / "e.safetensors", json.dumps(original.description))
    started = time.process_time()
    before = peak_bytes()
    with pytest.raises(ArtifactError) as refusal:
        de.load(path)
    assert peak_bytes() - before < 20 << 20 and time.process_time() - started < 0.5
    assert key in str(refusal.value) or key in ("head", "node")
    assert len(str(refusal.value)) < 500 and str(refusal.value).isprintable()


@pytest.mark.parametrize("command", ["card", "predict"])
def test_commands_refuse_with_exit_code_4(
    command: str, tmp_path: Path, drawn: Callable[..., list[Any]], report: Callable[..., None], densemble: Any
) -> None:
    """``card`` also reads the recorded figures, which ``load`` keeps unchanged."""
    original = Signed(SEGMENTATION)
    original.description["metrics"]["assembly"] = FIGURES
    cases = sorted(texts(original.description).items())
    if command == "card":
        cases = [case for case in cases if case[0].startswith(("metrics", "versions", "licence", "members.0.view"))]
    image = next((Path(__file__).parents[1] / "written_before" / "data" / "val" / "images").iterdir())
    problems = []
    cases = drawn(random.Random(1).sample(cases, 40))
    for name, text in cases:
        path = original.write(tmp_path / "e.safetensors", text)
        out = [image, "-o", tmp_path / "out", "--backend", "eager", "--again"] if command == "predict" else []
        try:
            done = densemble(command, path, *out)
        except Exception as error:
            problems.append(f"{name}: {type(error).__name__} {error}")
            continue
        if done.returncode not in (0, 4) or "Traceback" in done.stderr:
            problems.append(f"{name}: exit {done.returncode} {done.stderr[-300:]}")
    report(cases=len(cases), problems=problems)


SCORE = {"value": 0.9, "low": 0.8, "high": 0.95}
FIGURES = {
    "metric": "miou", "higher_is_better": True, "select": "greedy", "images": 8,
    "cross_fitted": {
        "folds": "2 folds", "score": SCORE, "scores": {"miou": 0.9}, "best_member": "stem",
        "gain": {"selection": SCORE, "calibration": SCORE, "total": SCORE},
    },
    "baselines": [{"name": "mean map", "score": 0.3}],
    "calibration": {"before": {"ece": 0.1, "nll": 0.5}, "after": {"ece": 0.05, "nll": 0.4}},
    "guarantee": {**SCORE, "coverage": 0.9, "checked_on": 4},
    "data": {"name": "set", "splits": {"train": 8, "val": 8}, "layout": "x", "left_out": 0, "digest": "0"},
    "members": {"stem": {"kind": "member", "loaded": "x", "weights": None}},
}  # fmt: skip


@pytest.mark.parametrize("damage", ["flip", "cut", "swap"])
def test_damage_of_the_file(
    damage: str, tmp_path: Path, drawn: Callable[..., list[Any]], report: Callable[..., None]
) -> None:
    content = SEGMENTATION.read_bytes()
    problems = []
    cases = drawn(range(60))
    for case in cases:
        draw, changed = random.Random(case), bytearray(content)
        place, other = draw.randrange(len(content)), draw.randrange(len(content) - 64)
        if damage == "flip":
            changed[place] ^= 1 << draw.randrange(8)
        elif damage == "cut":
            del changed[place:]
        else:
            changed[other : other + 64] = content[place : place + 64].ljust(64, b"\0")
        (tmp_path / "e.safetensors").write_bytes(changed)
        try:
            de.load(tmp_path / "e.safetensors")
            if changed != content:
                problems.append(f"{damage} {case}: not noticed")
        except ArtifactError:
            pass
        except Exception as error:
            problems.append(f"{damage} {case}: {type(error).__name__} {error}")
    report(cases=len(cases), problems=problems)
