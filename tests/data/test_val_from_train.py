"""``val_from_train``: validation pairs become test pairs, and a share of the training pairs is held out instead."""

from pathlib import Path

import pytest

from densemble.config import make_data_options
from densemble.data.folder import FolderData
from densemble.data.layouts import Sample
from densemble.errors import ConfigError


def stems(samples: tuple[Sample, ...]) -> set[str]:
    return {sample.stem for sample in samples}


def test_val_becomes_test_and_train_is_divided(scenes: Path) -> None:
    plain, moved = FolderData(scenes, "saliency"), FolderData(scenes, "saliency", val_from_train=0.25)
    assert moved.split("test") == plain.val
    assert len(moved.val) == 6 and stems(moved.val) | stems(moved.train) == stems(plain.train)
    assert not stems(moved.val) & stems(moved.train)
    assert "val_from_train" not in moved.said, "an artifact of these data is evaluated on the val split of the folder"


def test_a_drawn_validation_split_becomes_test_too(scenes: Path, tmp_path: Path) -> None:
    for kind in ("images", "targets"):
        (tmp_path / kind).symlink_to(scenes / "train" / kind)
    plain, moved = FolderData(tmp_path, "saliency"), FolderData(tmp_path, "saliency", val_from_train=0.25)
    assert moved.split("test") == plain.val and stems(moved.val) | stems(moved.train) == stems(plain.train)
    again = FolderData(tmp_path, "saliency", **moved.said)
    assert again.layout.splits == moved.layout.splits, "the split was drawn, so an artifact stores how"


def test_test_pairs_stay_test_pairs(scenes: Path, tmp_path: Path) -> None:
    for split, source in (("train", "train"), ("val", "val"), ("test", "val")):
        (tmp_path / split).symlink_to(scenes / source)
    plain, moved = FolderData(tmp_path, "saliency"), FolderData(tmp_path, "saliency", val_from_train=0.25)
    assert moved.layout.splits == plain.layout.splits


def test_a_share_outside_0_and_1_is_refused() -> None:
    with pytest.raises(ConfigError, match="val_from_train"):
        make_data_options({"val_from_train": 1.0})
