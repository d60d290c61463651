"""The command `benchmark`: tables, JSON output and errors."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import densemble as de
from densemble.ensemble.cascade import Cascade, Policy
from densemble.evaluation.benchmark import measure_ensemble as measure
from densemble.evaluation.benchmark.fresh_process import FreshProcess
from densemble.evaluation.benchmark.machine_limits import MachineLimits

Command = Callable[..., Any]
QUICK = ("--size", "48x64", "--rounds", "1", "--backend", "eager", "--precision", "fp32")


@pytest.fixture(autouse=True)
def known_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {"fp32": 5e11}
    monkeypatch.setattr(measure, "measure_limits", lambda device: MachineLimits(rates, rates, 7e10, {}))


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    options = {"weights": None, "input_size": (48, 64), "out_size": (12, 16)}
    members = {name: de.DenseModel(name, **options) for name in ("resdeconv", "squeezenet1_1")}
    policy = Policy(("resdeconv",), "entropy", 0.0, 0.3, 0.5, 0.9, 0.8)
    cascade = Cascade("cc", True, 8, 0.55, {"resdeconv": 0.3, "squeezenet1_1": 0.7}, (policy,), ())
    path = tmp_path_factory.mktemp("artifact") / "small.safetensors"
    de.save(de.Ensemble(members, cascade=cascade), path)
    return path


@pytest.fixture(autouse=True)
def known_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start no processes; tests/evaluation/benchmark/test_fresh.py tests them."""
    steps = dict.fromkeys(("python", "import", "load", "compile", "predict"), 1.0)
    monkeypatch.setattr(measure, "run_fresh", lambda request: FreshProcess(steps, 321.0, 123.0, None))


def test_json_is_complete_and_the_only_output_on_stdout(densemble: Command, artifact: Path, scenes: Path) -> None:
    done = densemble("benchmark", artifact, *QUICK, "--data", scenes, "--pictures", 2, "--budget", 0.5, "--json")
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    assert (
        values["size"] == [48, 64] and values["batch"] == 1 and values["machine"]["threads"] == torch.get_num_threads()
    )
    assert [member["name"] for member in values["members"]] == ["resdeconv", "squeezenet1_1"]
    assert list(values["ways"]) == ["naive loop", "ours, eager fp32"]
    assert list(values["processes"]) == ["naive loop", "ours, first time", "ours, choices remembered"]
    assert list(values["scores"]) == [*values["ways"], "ours, eager fp32, cascade"] and values["split"] == "val"
    assert all(len(row["samples"]) == 2 for row in values["scores"].values())
    cascade, whole = values["scores"]["ours, eager fp32, cascade"], values["scores"]["ours, eager fp32"]
    assert cascade["cc"] != pytest.approx(whole["cc"], abs=1e-4)  # the cascade runs one of the two members


def test_tables_list_members_variants_and_processes(densemble: Command, artifact: Path) -> None:
    done = densemble("benchmark", artifact, *QUICK)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "limits: convolutions 500 GFLOP/s in fp32; copies 70 GB/s"
    assert any(line.split()[-7:] == ["321", "5", "1", "1", "1", "1", "1"] for line in lines)
    for first in ("member", "resdeconv", "squeezenet1_1", "variant", "naive loop", "ours, eager fp32", "fresh process"):
        assert any(line.startswith(first) for line in lines), first


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--keep", "0.9"), "add --data"),
        (("--keep", "0.9", "--budget", "0.5"), "leave one of them out"),
        (("--backend", "abacus"), "no backend is named 'abacus'"),
        (("--precision", "fp12"), "no precision is named 'fp12'"),
        (("--size", "large"), "240x320"),
        (("--split", "holdout"), "no split is named 'holdout'"),
    ],
)
def test_invalid_options_are_usage_errors(densemble: Command, artifact: Path, words: tuple[str], message: str) -> None:
    done = densemble("benchmark", artifact, *words)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
