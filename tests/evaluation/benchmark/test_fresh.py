"""New processes: memory and time against known values, and failures with their reason."""

import io
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from densemble.errors import ResourceError
from densemble.evaluation.benchmark import fresh_process as fresh
from densemble.evaluation.benchmark.fresh_process import Request, run_fresh

STEPS = ["python", "import", "load", "compile", "predict"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("images") / "images.npy"
    np.save(path, np.random.default_rng(0).random((1, 3, 48, 64), np.float32))
    return str(path)


def test_peak_includes_released_memory() -> None:
    code = (
        "from densemble.evaluation.benchmark.fresh_process import peak_mib; "
        "before = peak_mib(); held = bytearray(300 << 20); "
        "del held; print(peak_mib() - before)"
    )
    grown = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert grown == pytest.approx(300, abs=10)


@pytest.mark.slow
def test_a_process_reports_its_memory(small_artifact: Path, images: str) -> None:
    found = run_fresh(Request(str(small_artifact), images, "", "", "cpu", 1))
    assert list(found.seconds) == STEPS and min(found.seconds.values()) >= 0
    assert found.peak_mib is not None and found.imported_mib is not None and found.device_mib is None
    assert found.peak_mib > found.imported_mib > 50


def test_seconds_by_step_on_a_given_clock(
    small_artifact: Path, images: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The process starts at 10; the steps end at 11, 13, 17, 25 and 41."""
    asked = {**asdict(Request(str(small_artifact), images, "", "", "cpu", torch.get_num_threads())), "spawned": 10}
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(asked)))
    clock = iter((11, 13, 17, 25, 41))
    monkeypatch.setattr(fresh, "time", SimpleNamespace(time=lambda: next(clock)))
    fresh.child()
    found = fresh.FreshProcess(**json.loads(capsys.readouterr().out))
    assert found.seconds == dict(zip(STEPS, (1, 2, 4, 8, 16), strict=True))
    assert found.cold_start == 31


def test_a_failure_contains_the_reason(tmp_path: Path, images: str) -> None:
    with pytest.raises(ResourceError, match=r"(?s)absent\.safetensors.*no artifact"):
        run_fresh(Request(str(tmp_path / "absent.safetensors"), images, "", "", "cpu", 1))
