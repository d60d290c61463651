"""Shares, sums and scores computed from measurements."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import densemble as de
from densemble.data.folder import FolderData
from densemble.evaluation.benchmark import measure_ensemble as measure
from densemble.evaluation.benchmark.benchmark_images import split_images, synthetic_images
from densemble.evaluation.benchmark.execution_modes import NAIVE
from densemble.evaluation.benchmark.flops import Work
from densemble.evaluation.benchmark.machine_limits import MachineLimits
from densemble.evaluation.benchmark.measure_ensemble import measure_batch, measure_split, temporary_cache
from densemble.evaluation.benchmark.member_timing import ExecutionChoice, MemberCost
from densemble.evaluation.benchmark.plain_values import batch_values, score_values
from densemble.evaluation.benchmark.split_scores import score_methods
from densemble.evaluation.scores import evaluate, images_with_targets
from densemble.tasks import SaliencyTask

EAGER = (("eager", "fp32"),)
BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


def test_shares_of_the_limits_by_hand() -> None:
    limits = MachineLimits({"fp32": 100.0, "bf16": 200.0}, {}, 50.0, {})
    plain, rewritten = Work(400, 10, {}, {}), Work(200, 5, {}, {})
    member = MemberCost(
        "a", plain, rewritten, {"ours": ExecutionChoice("x", "bf16")}, {NAIVE: [8.0, 9.0, 7.0], "ours": [2.0]}
    )
    assert member.share_of_peak(NAIVE, limits) == pytest.approx(400 / 100 / 8)
    assert member.share_of_peak("ours", limits) == pytest.approx(200 / 200 / 2)
    assert member.share_of_bandwidth(NAIVE, limits) == pytest.approx(10 * 4 / 50 / 8)
    assert member.share_of_bandwidth("ours", limits) == pytest.approx(5 * 2 / 50 / 2)


def test_a_batch_is_measured_with_all_methods(small_ensemble: de.Ensemble, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = iter((3e9, 5e9))
    monkeypatch.setattr(measure, "measure_limits", lambda device: MachineLimits({"fp32": next(rates)}, {}, 1e9, {}))
    images = synthetic_images(2, 3, (48, 64))
    half = {"theirs": lambda x: small_ensemble(x) / 2}
    values = batch_values(measure_batch(small_ensemble, images, EAGER, 2, half))
    assert list(values["ways"]) == [NAIVE, "theirs", "ours, eager fp32"]
    naive, theirs, ours = values["ways"].values()
    assert naive["relative_error"] == 0 and naive["times_as_fast"] == 1
    assert theirs["relative_error"] == pytest.approx(0.5, abs=1e-4) and theirs["least_seconds"] is None
    assert ours["relative_error"] < 1e-4
    flops = sum(member["flops"] for member in values["members"])
    assert naive["least_seconds"] == pytest.approx(flops / 5e9)
    assert all(len(way["samples"]) == 2 for member in values["members"] for way in member["ways"].values())


def test_the_temporary_cache_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DENSEMBLE_CACHE_DIR", "/mine")
    with temporary_cache() as folder:
        assert os.environ["DENSEMBLE_CACHE_DIR"] == str(folder) and folder.is_dir()
    assert os.environ["DENSEMBLE_CACHE_DIR"] == "/mine" and not folder.exists()
    monkeypatch.delenv("DENSEMBLE_CACHE_DIR")
    with temporary_cache():
        pass
    assert "DENSEMBLE_CACHE_DIR" not in os.environ


def test_scores_equal_evaluate(small_ensemble: de.Ensemble, scenes: Path) -> None:
    data = FolderData(scenes, "saliency")
    found = score_values(measure_split(small_ensemble, data, "val", EAGER, None, None), "cc", True)
    wanted = evaluate(small_ensemble, data, "val")
    for row in found.values():
        assert row["cc"] == pytest.approx(wanted["cc"], abs=1e-4) and len(row["samples"]) == 8
        assert row["kept"] == pytest.approx(1, abs=1e-3) and row["lost"] == pytest.approx(0, abs=1e-4)
    assert found[NAIVE]["times_as_fast"] == 1


def test_a_worse_method_loses_score(scenes: Path) -> None:
    data, task = FolderData(scenes, "saliency"), SaliencyTask()
    known = {target.sum().item(): target for _, target, _ in images_with_targets(data, "val")}
    order = {images.sum().item(): target.sum().item() for images, target, _ in images_with_targets(data, "val")}

    def perfect(images: torch.Tensor) -> torch.Tensor:
        return known[order[images.sum().item()]][None, None]

    found = score_values(
        score_methods({NAIVE: perfect, "noise": lambda images: perfect(images) + torch.rand(1, 1, 48, 64)},
                   task, images_with_targets(data, "val"), torch.device("cpu")), "cc", True,
    )  # fmt: skip
    assert found[NAIVE]["cc"] == pytest.approx(1, abs=1e-4)
    assert found["noise"]["lost"] == pytest.approx(1 - found["noise"]["cc"], abs=1e-4) and found["noise"]["lost"] > 0.1
    assert found["noise"]["kept"] == pytest.approx(found["noise"]["cc"], abs=1e-4)


def test_images_of_a_split_are_resized_and_repeated(scenes: Path) -> None:
    data = FolderData(scenes, "saliency")
    images = split_images(data, "val", 10, (24, 32))
    assert (
        images.shape == (10, 3, 24, 32) and torch.equal(images[0], images[8]) and not torch.equal(images[0], images[1])
    )
    same = split_images(data, "val", 1, (48, 64))
    assert torch.allclose(same, next(images_with_targets(data, "val"))[0], atol=1e-6)
    assert torch.equal(synthetic_images(1, 5, (48, 64))[:, 3:], synthetic_images(1, 3, (48, 64))[:, :2])


@pytest.mark.slow
def test_the_benchmark_of_a_gpu_runs_every_section_on_a_cpu() -> None:
    command = [sys.executable, str(BENCHMARKS / "bench_gpu.py"), "--smoke"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [row for row in ("batch 2: ", "memory, 2 members: ", "start: ", "folder: ") if row not in done.stdout] == []
