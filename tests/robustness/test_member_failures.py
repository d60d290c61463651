"""A member that fails in any way ends alone: the others are trained and assembled, and the run can be resumed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from failing_parts import CRASHES, KINDS
from small_networks import SMALL

from densemble.engines.isolation.calls import is_supported

pytestmark = [
    pytest.mark.xdist_group("isolated"),  # one server for all
    pytest.mark.skipif(not is_supported(), reason="processes are forked on Linux only"),
]
ALWAYS = "HangWithoutSignals"
"""Kind that ``make test`` always runs, beside a tenth of the others."""


def test_members_fail_alone(
    densemble: Callable[..., Any],
    scenes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    share: float,
    drawn: Callable[..., list[str]],
    report: Callable[..., None],
) -> None:
    monkeypatch.setattr("densemble.engines.isolation.calls.GRACE_SECONDS", 0.5)
    kinds = list(dict.fromkeys([*drawn(KINDS), ALWAYS]))
    out, config = tmp_path / "run", tmp_path / "run.yaml"
    good = {"backbone": SMALL, "weights": None}
    members = [{**good, "name": kind, "head": f"failing_parts:{kind}"} for kind in kinds]
    values = {
        "task": "saliency",
        "input_size": [48, 64],
        "out_size": [12, 16],
        "members": [{**good, "name": "first"}, *members, {**good, "name": "last"}],
        "training": {"epochs": 1, "batch_size": 8, "precision": "fp32"},
        "trainer": {"isolated": True, "timeout": 5.0},
    }
    config.write_text(yaml.safe_dump(values))
    functions = [word for name in (SMALL, *(member["head"] for member in members)) for word in ("--function", name)]
    done = densemble("train", scenes, "--config", config, "-o", out, *functions)
    problems = [] if done.returncode == 5 else [f"exit code {done.returncode}: {done.stderr[-2000:]}"]
    problems += [f"{name} is not trained" for name in ("first", "last") if record(out, name)["state"] != "done"]
    problems += [problem for kind in kinds if (problem := problem_of(out, kind))]
    problems += [] if (out / "ensemble.safetensors").is_file() else ["no artifact"]

    monkeypatch.setenv("MEMBERS_FAIL", "no")
    resumed = densemble("train", scenes, "-o", out, "--resume", *functions)
    problems += [] if resumed.returncode == 0 else [f"resumed: {resumed.returncode}: {resumed.stderr[-2000:]}"]
    trained = [line.split(":")[0] for line in resumed.stderr.splitlines() if ": done in" in line]
    expected = sorted(kinds, key=lambda kind: kind in CRASHES)
    problems += [] if trained == expected else [f"resumed in the order {trained}, not {expected}"]
    report(len(kinds), problems)


def record(out: Path, name: str) -> dict[str, Any]:
    (folder,) = (out / "members").glob(f"*-{name}")
    values: dict[str, Any] = json.loads((folder / "member.json").read_text())
    return {**values, "folder": folder}


def problem_of(out: Path, kind: str) -> str | None:
    """Return what is wrong with the record of a member that failed; ``None`` if it says what happened."""
    values = record(out, kind)
    if values["state"] != "failed" or KINDS[kind][1] not in values.get("error", ""):
        return f"{kind}: {values['state']}, {values.get('error')}"
    if bool(values.get("crashed")) != (kind in CRASHES):
        return f"{kind}: recorded as {'crashed' if values.get('crashed') else 'failed'}"
    details = values["folder"] / "error.txt"
    if kind in ("TypeError", "SegmentationFault", "Abort", "Hang", "HangInC") and "forward" not in details.read_text():
        return f"{kind}: error.txt does not say where"
    return None
