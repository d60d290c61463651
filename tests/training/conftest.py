"""Fixtures: the small network of ``small_training``, ready for training."""

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import Callback
from small_training import SETTINGS, Fit, member_folder, small_model

from densemble.data.decoded_cache import DecodedSplit, decode_split
from densemble.data.folder import FolderData
from densemble.tasks import SaliencyTask, Task
from densemble.training.fit import fit_member
from densemble.training.settings import FitSettings, MemberFit


@pytest.fixture(scope="session")
def splits(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[DecodedSplit, DecodedSplit]:
    data, cache = FolderData(scenes, "saliency"), tmp_path_factory.mktemp("cache")
    return decode_split(data, "train", (48, 64), cache), decode_split(data, "val", (48, 64), cache)


@pytest.fixture
def fit(splits: tuple[DecodedSplit, DecodedSplit]) -> Fit:
    """Return ``fit(RUN, settings, task=..., watch=(...))``, which trains into ``RUN/members/01-small``."""

    def train(
        run: Path, settings: FitSettings = SETTINGS, task: Task | None = None, watch: tuple[Callback, ...] = ()
    ) -> dict[str, Any]:
        folder, model = member_folder(run), small_model()
        folder.path.mkdir(parents=True, exist_ok=True)
        task = task or SaliencyTask()
        return fit_member(MemberFit(model, task, settings, *splits, (12, 16), folder, "small", run / "cache"), watch)

    return train
