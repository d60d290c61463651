"""Soft targets: certainty and mixture by hand, one geometry for image and maps, unlabelled images."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from densemble.data.decoded_cache import DecodedSplit, unit
from densemble.data.transforms import AUGMENT, Augmentation
from densemble.tasks import SaliencyTask, SegmentationTask, make_task
from densemble.training.dataset import DecodedSamples
from densemble.training.soft_targets import SoftSamples, SoftTargets, Weighting

SIZE = (24, 32)
SEGMENTATION = SegmentationTask(("a", "b"))
WARPS = Augmentation(flip=0.5, zoom=(0.8, 1.6), rotation=10.0, shear=4.0)


def samples(
    augmentation: Augmentation,
    labelled: int = 3,
    unlabelled: int = 2,
    share: float = 0.5,
    weighting: Weighting = "equal",
) -> SoftSamples:
    """Smooth images whose map of class b is the first channel of the image; the label is 1 where it is above 0.5."""
    random, count = np.random.default_rng(0), labelled + unlabelled
    coarse = torch.from_numpy(random.random((count, 3, 4, 5), np.float32))
    images = torch.nn.functional.interpolate(coarse, SIZE, mode="bicubic").clamp(0, 1).numpy()
    maps = np.stack([1 - images[:, 0], images[:, 0]], 1).astype(np.float16)
    labels = (images[:labelled, 0] > 0.5).astype(np.uint8)
    split = DecodedSplit(images[:labelled], labels, tuple("abcdef"[:labelled]))
    soft = SoftTargets(maps, np.zeros((count, *SIZE), np.float32), 1.0, images[labelled:], share, weighting)
    return SoftSamples(DecodedSamples(split, SIZE, "labels", 255.0, augmentation, 3), soft)


def test_the_certainty_is_one_half_at_the_mean_doubt() -> None:
    doubt = np.array([[[0.0, 0.2, 0.6]]], np.float32)
    soft = SoftTargets(np.ones((1, 1, 1, 3), np.float16), doubt, 0.2, np.empty((0, 3, 1, 3)), 0.5, "certain")
    torch.testing.assert_close(soft.read(0)[1], torch.tensor([[[1.0, 0.5, 0.25]]]))


def test_members_that_agree_everywhere_are_certain() -> None:
    soft = SoftTargets(np.ones((1, 1, 1, 2)), np.zeros((1, 1, 2)), 0.0, np.empty((0, 3, 1, 2)), 0.5, "certain")
    assert soft.read(0)[1].tolist() == [[[1.0, 1.0]]]


def test_a_mirrored_image_has_mirrored_maps_and_labels() -> None:
    plain, mirrored = samples(AUGMENT["none"]), samples(Augmentation(flip=1.0))
    for index in range(5):
        (image, target), (other_image, other_target) = plain[0, index], mirrored[0, index]
        assert torch.equal(other_image, image.flip(-1)) and not torch.equal(other_image, image)
        torch.testing.assert_close(other_target, target.flip(-1), equal_nan=True)


@pytest.mark.parametrize("index", range(5))
def test_a_warp_moves_image_and_maps_together(index: int) -> None:
    image, target = samples(WARPS)[0, index]
    maps, certainty = target[:2], target[2]
    inside = certainty.isfinite() & maps.isfinite().all(0)
    assert inside.float().mean() > 0.5
    # At the border of the image, image and map are padded differently.
    inside[:2], inside[-2:], inside[:, :2], inside[:, -2:] = False, False, False, False
    inner = -torch.nn.functional.max_pool2d(-inside[None].float(), 5, 1, 2)[0] > 0
    torch.testing.assert_close(maps[1][inner], image[0][inner], atol=0.02, rtol=0)
    torch.testing.assert_close(maps.sum(0)[inner], torch.ones(int(inner.sum())), atol=0.01, rtol=0)


def test_maps_of_another_size_are_warped_in_pixels_of_the_image() -> None:
    large = samples(WARPS, unlabelled=0)
    small = SoftTargets(
        large.soft.maps[..., ::2, ::2], large.soft.doubt[..., ::2, ::2], 1.0, large.soft.unlabelled, 0.5, "equal"
    )
    split = large.labelled.split
    half = SoftSamples(DecodedSamples(split, (12, 16), "labels", 255.0, WARPS, 3), small)
    image, target = half[0, 0]
    resized = torch.nn.functional.interpolate(image[None, :1], (12, 16), mode="bilinear", antialias=True)[0, 0]
    inside = target[:3].isfinite().all(0)
    assert (target[1] - resized)[inside].abs().mean() < 0.05


def test_unlabelled_images_follow_the_labelled_ones_and_have_no_target() -> None:
    data = samples(AUGMENT["none"])
    assert len(data) == 5
    for index in range(5):
        image, target = data[0, index]
        assert bool(target[3:].isnan().all()) == (index >= 3)
        torch.testing.assert_close(target[1], image[0], atol=1e-3, rtol=0)
    assert torch.equal(data[0, 4][0], unit(data.soft.unlabelled[1]))


def test_the_loss_mixes_maps_and_targets_by_the_label_share() -> None:
    data = samples(AUGMENT["none"], share=0.25)
    batch = torch.stack([data[0, index][1] for index in (0, 1, 2, 3)])  # the last image has no target
    logits, loss = torch.randn(4, 2, *SIZE), data.soft.loss(SEGMENTATION)
    on_maps = SEGMENTATION.soft_loss(logits, batch[:, :2], torch.ones(4, *SIZE))
    on_labels = SEGMENTATION.loss(logits[:3], batch[:3, 3])
    torch.testing.assert_close(loss(logits, batch), 0.75 * on_maps + 0.25 * 0.75 * on_labels)
    only = batch[3:]
    torch.testing.assert_close(
        loss(logits[3:], only), 0.75 * SEGMENTATION.soft_loss(logits[3:], only[:, :2], torch.ones(1, *SIZE))
    )


@pytest.mark.parametrize(
    ("weighting", "expected"), [("certain", (1.0, 0.5)), ("uncertain", (0.5, 1.0)), ("equal", (1, 1))]
)
def test_weights_of_pixels(weighting: Weighting, expected: tuple[float, float]) -> None:
    maps = np.array([[[[0.5, 0.9]], [[0.5, 0.1]]]], np.float16)
    soft = SoftTargets(maps, np.array([[[0.0, 0.2]]], np.float32), 0.2, np.empty((0, 3, 1, 2)), 0.0, weighting)
    packed = torch.cat([*soft.read(0), torch.zeros(1, 1, 2)])[None]
    logits = torch.zeros(1, 2, 1, 2)
    weight = torch.tensor(expected).view(1, 1, 2)
    torch.testing.assert_close(
        soft.loss(SEGMENTATION)(logits, packed), SEGMENTATION.soft_loss(logits, packed[:, :2], weight)
    )


def test_pixels_that_a_warp_brings_in_do_not_count() -> None:
    soft = SoftTargets(np.ones((1, 1, 1, 2)), np.zeros((1, 1, 2)), 0.0, np.empty((0, 3, 1, 2)), 0.0, "certain")
    packed = torch.tensor([[[[0.9, 0.1]], [[0.1, 0.9]], [[1.0, torch.nan]], [[0.0, 255.0]]]])
    logits = torch.zeros(1, 2, 1, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(soft.loss(SEGMENTATION)(logits, packed), logits)
    assert gradient[..., 0].abs().sum() > 0 and gradient[..., 1].abs().sum() == 0


def test_a_target_without_channels_keeps_its_shape_for_the_loss() -> None:
    task = SaliencyTask()
    soft = SoftTargets(np.ones((1, 1, 4, 4)), np.zeros((1, 4, 4)), 0.0, np.empty((0, 3, 4, 4)), 0.5, "equal")
    packed = torch.rand(2, 3, 4, 4)
    packed[:, 1] = 1.0
    logits = torch.randn(2, 1, 4, 4)
    expected = 0.5 * task.loss(logits, packed[:, 2]) + 0.5 * task.soft_loss(logits, packed[:, :1], torch.ones(2, 4, 4))
    torch.testing.assert_close(soft.loss(task)(logits, packed), expected)


EVERY_KIND: list[dict[str, Any]] = [
    {"name": "saliency"},
    {"name": "segmentation", "classes": ["a", "b"], "loss_name": "cross_entropy+dice"},
    {"name": "multilabel", "classes": ["a", "b"]},
    {"name": "depth", "scale": 2.0},
    {"name": "heatmap", "classes": ["a", "b"]},
    {"name": "heatmap", "classes": ["a"], "mode": "density"},
    {"name": "image"},
]


@pytest.mark.parametrize("values", EVERY_KIND, ids=lambda values: f"{values['name']} {values.get('mode', '')}")
def test_every_kind_of_target_can_be_augmented_and_learned(values: dict[str, Any]) -> None:
    task, random = make_task(values), np.random.default_rng(0)
    shape = (3, *([task.out_channels] if task.planes else []), *SIZE)
    integer = task.target_kind in ("labels", "masks")
    targets = random.integers(0, 2, shape, np.uint8) if integer else random.random(shape, np.float32) + 0.1
    targets = targets if integer else targets.clip(0, 1)
    maps = torch.softmax(torch.randn(4, max(task.out_channels, 2), 12, 16), 1)[:, : task.out_channels].numpy()
    images = random.integers(0, 255, (4, 3, *SIZE), np.uint8)
    soft = SoftTargets(maps, random.random((4, 12, 16), np.float32), 0.5, images[3:], 0.5, "certain")
    split = DecodedSplit(images[:3], targets, ("a", "b", "c"))
    data = SoftSamples(DecodedSamples(split, (12, 16), task.target_kind, task.fill, WARPS, 3), soft)
    packed = torch.stack([data[1, index][1] for index in range(4)])
    logits = torch.randn(4, task.out_channels, 12, 16, requires_grad=True)
    loss = soft.loss(task)(logits, packed)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.isfinite() and gradient.isfinite().all() and gradient[3].abs().sum() > 0


def test_another_process_opens_the_files_instead_of_copying_the_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "maps.npy", np.random.default_rng(0).random((50, 1, 24, 32)))
    maps = np.load(tmp_path / "maps.npy", mmap_mode="r")
    soft = SoftTargets(maps, np.zeros((50, 1, 1)), 1.0, np.empty((0, 3, 1, 1)), 0.5, "certain")
    text = pickle.dumps(soft)
    assert len(text) < 5000
    again = pickle.loads(text)
    assert isinstance(again.maps, np.memmap) and np.array_equal(again.maps, maps) and again.label_share == 0.5
