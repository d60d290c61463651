"""Times of steps and validations with a fake clock: seconds = fixed part + part per image."""

from pathlib import Path
from typing import Any

import pytest
from small_run import SMALL_RUN

from densemble.config import make_config
from densemble.data.folder import FolderData
from densemble.engines import measuring
from densemble.engines.measuring import CPU_IMAGES, StepTimes, measure_steps
from densemble.engines.member import Training, build_member
from densemble.storage.runs import RunFolder
from densemble.training.settings import MemberFit


@pytest.fixture(scope="module")
def fit(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> MemberFit:
    """A training with batches of 8 of 24 images."""
    data, config = FolderData(scenes, "saliency"), make_config({**SMALL_RUN, "members": ["resdeconv"]})
    return build_member(Training(data, data.task, config, RunFolder(tmp_path_factory.mktemp("run"))), 0)


@pytest.mark.parametrize(
    ("fixed", "longest", "step", "validation"),
    [
        (6.0, 32.0, 6 + 8, (3 + 4) / 8),  # exact; in proportion to two images it would be 32 s
        (6.0, 31.0, (6 + 2) * 4, (3 + 1) / 2),  # a step may take too long to measure it: an upper bound
        (0.0, 31.0, 8, 0.5),  # in proportion to the number of images, measured or not
        (0.0, 1.0, 8, 0.5),
    ],
)
def test_a_full_batch_is_measured_if_it_does_not_take_too_long(
    fit: MemberFit, monkeypatch: pytest.MonkeyPatch, fixed: float, longest: float, step: float, validation: float
) -> None:
    """A step takes ``fixed`` seconds and one for each image, a validation half of it. Some steps wait for the CPU."""
    now = [0.0]

    def work(factor: float) -> Any:
        def call(_: object, inputs: Any, targets: Any) -> None:
            now[0] += factor * (fixed + len(targets))

        return call

    stalls = iter([50.0, 0.0, 0.0, 70.0])

    def step_on_a_busy_machine(*given: Any) -> None:
        work(1.0)(*given)
        now[0] += next(stalls, 0.0)

    monkeypatch.setattr(measuring._StepTimer, "_step", step_on_a_busy_machine)
    monkeypatch.setattr(measuring._StepTimer, "_validate", work(0.5))
    assert CPU_IMAGES == 2
    assert measure_steps(fit, lambda: now[0], longest) == StepTimes(step, validation, 0.0, 8)
