"""Memory of a selection does not grow with the number of images; measured in a separate process."""

from pathlib import Path

import pytest
from selection_memory import measure, write_predictions


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_predictions_are_not_in_memory_all_at_once(tmp_path: Path) -> None:
    write_predictions(tmp_path, candidates=12, images=100, classes=11, size=(48, 64))
    on_disk = sum(path.stat().st_size for path in tmp_path.glob("candidate-*.npy")) / 1024**2
    result = measure(tmp_path, "miou", rounds=2, patience=2, threads=1)
    assert result["taken"] >= 1
    assert result["peak_mib"] - result["peak_before_mib"] < on_disk / 2
