"""Fresh processes: memory and time against what is known, and failures with their reason."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from densemble.benchmarking.fresh import Request, run_fresh
from densemble.errors import ResourceError


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("images") / "images.npy"
    np.save(path, np.random.default_rng(0).random((1, 3, 48, 64), np.float32))
    return str(path)


def test_the_peak_is_that_of_memory_that_is_gone_again() -> None:
    code = (
        "from densemble.benchmarking.fresh import peak_mib; before = peak_mib(); held = bytearray(300 << 20); "
        "del held; print(peak_mib() - before)"
    )
    grown = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert grown == pytest.approx(300, abs=10)


def test_a_process_tells_what_took_how_long(small_artifact: Path, images: str) -> None:
    started = time.time()
    found = run_fresh(Request(str(small_artifact), images, "", "", "cpu", 1))
    taken = time.time() - started
    assert list(found.seconds) == ["python", "import", "load", "compile", "predict"]
    assert min(found.seconds.values()) >= 0 and 0.5 * taken < found.cold_start <= taken
    assert found.peak_mib is not None and found.imported_mib is not None and found.device_mib is None
    assert found.peak_mib > found.imported_mib > 50


def test_a_failure_says_why(tmp_path: Path, images: str) -> None:
    with pytest.raises(ResourceError, match=r"(?s)absent\.safetensors.*no artifact"):
        run_fresh(Request(str(tmp_path / "absent.safetensors"), images, "", "", "cpu", 1))
