"""Targets that are read on access equal the files, at full size and small."""

from pathlib import Path

import numpy as np
import torch

from densemble.config import make_config
from densemble.data.folder import FolderData
from densemble.evaluation.scores import images_with_targets
from densemble.selection.held_out_targets import full_size_targets, small_targets
from densemble.storage.images import read_image
from densemble.storage.runs import RunFolder


def test_full_size_targets_equal_the_files(scenes: Path) -> None:
    data = FolderData(scenes, "saliency")
    targets = full_size_targets(data, "val")
    assert len(targets) == len(data.val) == 8
    for number, (image, target, points) in zip((6, 1), images_with_targets(data, "val", [6, 1]), strict=True):
        pixels = read_image(data.val[number].image).astype(np.float32) / 255
        np.testing.assert_allclose(image[0].permute(1, 2, 0).numpy(), pixels, atol=1e-6)
        read, fixations = targets[number]
        assert torch.equal(read, target) and np.array_equal(read.numpy(), data.read_target(data.val[number]))
        assert (fixations is None) == (points is None)
        if points is not None and fixations is not None:
            assert torch.equal(fixations, points)


def test_small_targets_have_the_size_of_kept_maps_and_no_fixations(scenes: Path, tmp_path: Path) -> None:
    data = FolderData(scenes, "saliency")
    config = make_config({"task": "saliency", "input_size": [48, 64], "members": [{"backbone": "resdeconv"}]})
    targets = small_targets(data, config, RunFolder(tmp_path), (12, 16))
    target, fixations = targets[3]
    whole = torch.from_numpy(data.read_target(data.val[3]).copy()).float().reshape(1, 1, 48, 64)
    expected = torch.nn.functional.adaptive_avg_pool2d(whole, (12, 16)).squeeze()
    assert len(targets) == 8 and fixations is None and target.shape[-2:] == (12, 16)
    assert float((target.float().squeeze() / target.max() - expected / expected.max()).abs().mean()) < 0.05
