"""Picture and map move together."""

import pytest
import torch
import torch.nn.functional as F

from densemble.data.transforms import AUGMENT, Augmentation, augment

GEOMETRY = Augmentation(flip=0.5, zoom=0.6, rotation=5.0, colour=0.0)


def blobs(size: tuple[int, int]) -> torch.Tensor:
    """A smooth pattern, the same in relative coordinates at every size."""
    y, x = torch.meshgrid(*((torch.arange(n) + 0.5) / n for n in size), indexing="ij")
    return 0.5 + 0.25 * torch.sin(7 * x + 3 * y) + 0.25 * torch.cos(5 * y * x + 2 * x)


@pytest.mark.parametrize("index", range(12))
def test_a_map_of_the_picture_itself_stays_one(index: int) -> None:
    image, target = blobs((96, 128)), blobs((24, 32))
    moved, moved_target = augment(image.expand(3, -1, -1), target, GEOMETRY, (0, 0, index), fill=-1.0)
    small = F.interpolate(moved[:1][None], size=(24, 32), mode="area")[0, 0]
    inside = moved_target >= 0
    assert inside.float().mean() > 0.9
    # The nearest pixel of the map is at most half a map pixel away: the pattern changes by at most 0.13 there.
    assert (small - moved_target)[inside].abs().max() < 0.13
    assert (small - moved_target)[inside].abs().mean() < 0.03


@pytest.mark.parametrize("index", range(8))
def test_labels_stay_labels(index: int) -> None:
    labels = torch.randint(0, 11, (24, 32), dtype=torch.uint8)
    _, moved = augment(torch.rand(3, 96, 128), labels, AUGMENT["strong"], (0, 0, index), fill=255.0)
    assert moved.dtype == torch.uint8
    assert set(moved.unique().tolist()) <= {*range(11), 255}


def test_the_same_key_gives_the_same_sample_and_others_differ() -> None:
    image, target = torch.rand(3, 24, 32), torch.rand(12, 16)
    once = augment(image, target, AUGMENT["strong"], (1, 2, 3), 0.0)
    again = augment(image, target, AUGMENT["strong"], (1, 2, 3), 0.0)
    assert torch.equal(once[0], again[0]) and torch.equal(once[1], again[1])
    assert not torch.equal(once[0], augment(image, target, AUGMENT["strong"], (1, 3, 3), 0.0)[0])


def test_none_changes_nothing() -> None:
    image, target = torch.rand(3, 24, 32), torch.rand(12, 16)
    got = augment(image, target, AUGMENT["none"], (0, 0, 0), 0.0)
    assert torch.equal(got[0], image) and torch.equal(got[1], target)


def test_light_flips_both_or_none_and_keeps_the_frame() -> None:
    image, target = torch.rand(3, 24, 32), torch.rand(12, 16)
    flipped = 0
    for index in range(40):
        moved, moved_target = augment(image, target, AUGMENT["light"], (0, 0, index), 0.0)
        flip = torch.equal(moved_target, target.flip(-1))
        assert flip or torch.equal(moved_target, target)
        flipped += flip
        wanted = image.flip(-1) if flip else image
        a, b = moved.mean(0).flatten(), wanted.mean(0).flatten()
        assert torch.corrcoef(torch.stack([a, b]))[0, 1] > 0.98
    assert 8 < flipped < 32
