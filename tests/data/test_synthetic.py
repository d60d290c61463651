"""The drawn scenes: repeatable, well formed, and learnable from the picture rather than from the centre."""

from pathlib import Path

import numpy as np
import pytest

from densemble.data.folder import FolderData
from densemble.data.synthetic import make_scenes
from densemble.errors import ResourceError, UsageError
from densemble.metrics.saliency import correlation


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    one = contents(make_scenes(tmp_path / "a", 3, 2, (48, 64), seed=7))
    assert one == contents(make_scenes(tmp_path / "b", 3, 2, (48, 64), seed=7))
    assert one != contents(make_scenes(tmp_path / "c", 3, 2, (48, 64), seed=8))
    assert len(one) == 5 * 3


def test_scenes_are_a_clean_data_set(scenes: Path) -> None:
    facts = FolderData(scenes, "saliency").check()
    assert facts["ok"] and facts["splits"]["train"]["with_fixations"] == 24
    assert facts["splits"]["val"]["sizes"] == {"48x64": 8}


def test_fixations_lie_where_the_map_is_high(scenes: Path) -> None:
    data = FolderData(scenes, "saliency")
    for sample in data.val:
        target, points = data.read_target(sample), data.read_points(sample)
        assert points is not None and target[points].mean() > 2 * target.mean()


def test_attention_is_not_the_same_everywhere(tmp_path: Path) -> None:
    import torch

    data = FolderData(make_scenes(tmp_path, 40, 10, (48, 64)), "saliency")
    mean = np.mean([data.read_target(sample) for sample in data.train], axis=0)
    centre = [
        correlation(torch.from_numpy(mean).double(), torch.from_numpy(data.read_target(s)).double()) for s in data.val
    ]
    assert np.mean(centre) < 0.6


def test_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="32x32"):
        make_scenes(tmp_path / "x", size=(8, 8))
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="choose another folder"):
        make_scenes(tmp_path / "file" / "x", 1, 1, (48, 64))
