"""The drawn scenes are reproducible and valid, and the targets depend on the image, not only on the centre."""

from pathlib import Path

import numpy as np
import pytest

from densemble.data.folder import FolderData
from densemble.data.synthetic import FIXATIONS_PER_VIEWER, make_scenes, viewed
from densemble.errors import ResourceError, UsageError
from densemble.metrics.saliency import correlations


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
    mean = torch.from_numpy(np.mean([data.read_target(sample) for sample in data.train], axis=0)).double()
    targets = [torch.from_numpy(data.read_target(sample)).double() for sample in data.val]
    centre = [float(correlations(mean.view(1, -1), target.view(-1))) for target in targets]
    assert np.mean(centre) < 0.6


def pixels(folder: Path, part: str) -> np.ndarray:
    data = FolderData(folder, "saliency")
    return np.stack([data.read_image(sample).astype(float) for sample in data.split(part)])


def targets(folder: Path, part: str) -> np.ndarray:
    data = FolderData(folder, "saliency")
    return np.stack([data.read_target(sample) for sample in data.split(part)])


def test_noise_has_the_given_spread_and_changes_neither_scenes_nor_targets(tmp_path: Path) -> None:
    exact, noisy = make_scenes(tmp_path / "a", 6, 2, (96, 128)), make_scenes(tmp_path / "b", 6, 2, (96, 128), noise=20)
    for part in ("train", "val"):
        assert np.array_equal(targets(exact, part), targets(noisy, part))
        difference = pixels(noisy, part) - pixels(exact, part)
        # JPEG smooths colours: luminance noise of 20 / sqrt(3) at least stays.
        assert 10 < difference.std() < 20 and abs(difference.mean()) < 1


def test_few_viewers_make_training_targets_noisy_and_leave_validation_targets_exact(tmp_path: Path) -> None:
    exact = make_scenes(tmp_path / "a", 12, 3, (48, 64))
    agreement = []
    for viewers in (1, 50):
        folder = make_scenes(tmp_path / str(viewers), 12, 3, (48, 64), viewers=viewers)
        assert np.array_equal(pixels(folder, "train"), pixels(exact, "train"))
        assert np.array_equal(targets(folder, "val"), targets(exact, "val"))
        pairs = zip(targets(folder, "train"), targets(exact, "train"), strict=True)
        agreement.append(np.mean([np.corrcoef(one.ravel(), two.ravel())[0, 1] for one, two in pairs]))
    assert agreement[0] < 0.85 and agreement[1] > 0.9, "more viewers agree better with the exact density"


def test_the_map_of_a_viewer_by_hand() -> None:
    density = np.zeros((50, 40), np.float32)
    density[10, 30] = 1.0
    gaze = viewed(np.random.default_rng(0), density, 1)
    spread = 0.06 * 50
    assert FIXATIONS_PER_VIEWER == 4 and np.unravel_index(gaze.argmax(), gaze.shape) == (10, 30)
    assert gaze[10, 30] == 1 and gaze[13, 30] == pytest.approx(np.exp(-(3**2) / (2 * spread**2)))


def test_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="32x32"):
        make_scenes(tmp_path / "x", size=(8, 8))
    with pytest.raises(UsageError, match="0 viewers"):
        make_scenes(tmp_path / "x", 1, 1, viewers=0)
    with pytest.raises(UsageError, match="noise -1 is negative"):
        make_scenes(tmp_path / "x", 1, 1, noise=-1)
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="choose another folder"):
        make_scenes(tmp_path / "file" / "x", 1, 1, (48, 64))
