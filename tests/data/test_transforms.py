"""Image and target are transformed together, for every kind of target; compared with points and an inverse by hand."""

import math
import pickle
from collections.abc import Iterator
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from matplotlib.colors import rgb_to_hsv
from scipy import ndimage
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as torchvision_functional

from densemble.data.transforms import (
    AUGMENT,
    Change,
    Look,
    Warp,
    apply_change,
    augment,
    draw_change,
    move_points,
)
from densemble.errors import UsageError
from densemble.tasks.task import TargetKind

SIZE = (96, 128)
STRONG = AUGMENT["strong"]
ROTATED = Warp(1.0, 10.0, (0.0, 0.0), (0.0, 0.0))
ENLARGED = Warp(1.6, 0.0, (0.0, 0.0), (-20.0, 12.5))
REDUCED = Warp(0.8, 0.0, (0.0, 0.0), (7.3, -4.1))
SHEARED = Warp(1.0, 0.0, (4.0, -3.0), (0.0, 0.0))
COMPOSED = Warp(1.3, -7.0, (3.0, 2.0), (5.2, -9.6))
CHANGES = {
    "flip": Change(flip=True),
    "rotation": Change(warp=ROTATED),
    "zoom in": Change(warp=ENLARGED),
    "zoom out": Change(warp=REDUCED),
    "shear": Change(warp=SHEARED),
    "all": Change(flip=True, warp=COMPOSED),
    **{f"drawn {index}": draw_change(STRONG, (0, 0, index), SIZE) for index in range(6)},
}


# --- painting -------------------------------------------------------------------------------------------------------


def distance(point: torch.Tensor) -> torch.Tensor:
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in SIZE), indexing="ij")
    return torch.hypot(x - point[0], y - point[1])


def painted(kind: TargetKind, point: torch.Tensor) -> torch.Tensor:
    """A target that shows one spot at a point (x, y)."""
    blob = torch.exp(-((distance(point) / 2.5) ** 2) / 2)
    disc = distance(point) < 6
    return {
        "labels": disc.long() * 3,
        "masks": torch.stack([~disc, disc]).to(torch.uint8),
        "heat": blob,
        "density": blob / blob.sum(),
        "values": torch.where(disc, 5.0, 2.0),
        "pixels": blob.expand(3, -1, -1).clone(),
    }[kind]


def spot(kind: TargetKind, target: torch.Tensor) -> torch.Tensor:
    """Weights ``(H, W)`` of the spot in a moved target."""
    if kind in ("labels", "values"):
        return (target == {"labels": 3, "values": 5.0}[kind]).float()
    if kind == "masks":
        return (target[1] == 1).float()
    layer = target[0] if kind == "pixels" else target
    layer = layer.nan_to_num(0.0)
    return (layer - 0.1 * layer.max()).clamp(min=0)


def centroid(weights: torch.Tensor) -> torch.Tensor:
    y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in SIZE), indexing="ij")
    return torch.stack([(weights * x).sum(), (weights * y).sum()]) / weights.sum()


def points_that_stay(change: Change) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Points (x, y) well inside the image and the frame, and their destinations."""
    height, width = SIZE
    edge = torch.tensor([width - 1.0, height - 1.0])
    points = 12 + torch.rand(40, 2) * (edge - 24)
    moved = move_points(change, points, SIZE)
    stays = ((moved > 14) & (moved < edge - 14)).all(dim=1)
    assert stays.sum() >= 4
    yield from zip(points[stays][:4], moved[stays][:4], strict=True)


# --- the geometry is one --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", get_args(TargetKind))
@pytest.mark.parametrize("name", CHANGES)
def test_image_and_target_move_as_points_do(name: str, kind: TargetKind) -> None:
    change = replace(CHANGES[name], look=None)
    for point, moved in points_that_stay(change):
        image = painted("pixels", point)
        new_image, target = apply_change(change, image, painted(kind, point), kind, 255.0)
        # Turning the points about a centre half a pixel off moves them by 0.3 px at zoom 1.6; the tolerance is smaller.
        assert torch.dist(centroid(spot("pixels", new_image)), moved) < 0.1
        nearest = kind in ("labels", "masks", "values")
        assert torch.dist(centroid(spot(kind, target)), moved) < (0.5 if nearest else 0.1)


def inverse_mapping(warp: Warp) -> np.ndarray:
    """Row and column in the image of every pixel of the frame ``(2, H, W)``, from the definition of the map."""
    turn, shear_x, shear_y = (math.radians(angle) for angle in (warp.angle, *warp.shear))
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    along_y = np.array([[1, 0], [-math.tan(shear_y), 1]])
    along_x = np.array([[1, -math.tan(shear_x)], [0, 1]])
    forward = warp.scale * rotation @ along_y @ along_x
    centre = np.array([[(SIZE[1] - 1) / 2], [(SIZE[0] - 1) / 2]])
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    frame = np.stack([columns.ravel(), rows.ravel()]).astype(float)
    x, y = np.linalg.inv(forward) @ (frame - centre - np.array(warp.shift)[:, None]) + centre
    return np.stack([y, x]).reshape(2, *SIZE)


@pytest.mark.parametrize("flip", [False, True])
def test_the_composition_is_the_inverse_mapping_by_hand(flip: bool) -> None:
    image, heat, labels = torch.rand(3, *SIZE), torch.rand(SIZE), torch.randint(0, 11, SIZE, dtype=torch.uint8)
    change = Change(flip, COMPOSED)
    moved_image, moved_heat = apply_change(change, image, heat, "heat", 0.0)
    moved_labels = apply_change(change, image, labels, "labels", 255.0)[1]
    places = inverse_mapping(COMPOSED)[:, :, :: -1 if flip else 1]

    def bilinear(layer: torch.Tensor, outside: float) -> np.ndarray:
        return ndimage.map_coordinates(layer.double().numpy(), places, order=1, mode="grid-constant", cval=outside)

    np.testing.assert_allclose(moved_heat, bilinear(heat, 0.0), atol=1e-4)
    for layer, moved in zip(image, moved_image, strict=True):
        np.testing.assert_allclose(moved, bilinear(layer, float(layer.mean())), atol=1e-4)
    rows, columns = np.rint(places).astype(int)
    inside = (rows >= 0) & (rows < SIZE[0]) & (columns >= 0) & (columns < SIZE[1])
    wanted = np.where(inside, labels.numpy()[rows.clip(0, SIZE[0] - 1), columns.clip(0, SIZE[1] - 1)], 255)
    # Within 1e-4 px of the middle between two pixels, single and double precision may round differently.
    clear = (np.abs(places - np.floor(places) - 0.5) > 1e-4).all(axis=0)
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(moved_labels.numpy()[clear], wanted[clear])


@pytest.mark.parametrize("index", range(6))
def test_all_kinds_leave_the_frame_at_the_same_pixels(index: int) -> None:
    change = replace(draw_change(replace(STRONG, zoom=(0.8, 0.95)), (0, 1, index), SIZE), look=None)
    image, ones = torch.rand(3, *SIZE), torch.ones(SIZE)

    def moved(kind: TargetKind, target: torch.Tensor) -> torch.Tensor:
        return apply_change(change, image, target, kind, 255.0)[1]

    outside = moved("labels", torch.zeros(SIZE, dtype=torch.uint8)) == 255
    assert 0.02 < outside.float().mean() < 0.6
    assert torch.equal(moved("masks", torch.zeros(2, *SIZE, dtype=torch.uint8)) == 255, outside.expand(2, -1, -1))
    assert torch.equal(moved("values", ones).isnan(), outside)
    assert torch.equal(moved("pixels", ones).isnan(), outside)
    # Bilinear maps fade within a pixel of the rim; beyond, they are 0 or whole.
    beyond = torch.from_numpy(ndimage.binary_erosion(outside.numpy(), iterations=2))
    within = torch.from_numpy(ndimage.binary_erosion(~outside.numpy(), iterations=2))
    assert change.warp is not None
    for kind, whole in (("heat", 1.0), ("density", change.warp.scale**-2)):
        assert (moved(kind, ones)[beyond] == 0).all()
        torch.testing.assert_close(moved(kind, ones)[within], torch.full((int(within.sum()),), whole))
    new_image = apply_change(change, image, ones, "heat", 0.0)[0]
    mean = image.mean(dim=(1, 2))[:, None]
    torch.testing.assert_close(new_image[:, beyond], mean.expand(-1, int(beyond.sum())))
    assert (new_image[:, within] - mean).abs().mean() > 0.05


def test_the_rim_of_an_even_image_has_no_seam() -> None:
    even = torch.full((3, *SIZE), 0.7)
    torch.testing.assert_close(apply_change(Change(warp=REDUCED), even, even[0], "heat", 0.0)[0], even)


# --- what the kinds promise -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_labels_stay_labels(dtype: torch.dtype) -> None:
    names = torch.tensor([0, 3, 4, 90, 200] if dtype == torch.uint8 else [0, 7, 1001, 65535, 1_000_003])
    labels = names[torch.randint(0, 5, SIZE)].to(dtype)
    for index in range(12):
        _, moved = augment(torch.rand(3, *SIZE), labels, STRONG, (0, 0, index), "labels", 255.0)
        assert moved.dtype == dtype
        assert set(moved.unique().tolist()) <= {*names.tolist(), 255}


def test_masks_keep_their_ignored_pixels_and_types() -> None:
    for masks in (torch.randint(0, 2, (4, *SIZE)) * 255, torch.randint(0, 2, (4, *SIZE)).bool()):
        _, moved = augment(torch.rand(3, *SIZE), masks, STRONG, (0, 0, 1), "masks", float(masks.max()))
        assert moved.dtype == masks.dtype and set(moved.unique().tolist()) == set(masks.unique().tolist())


@pytest.mark.parametrize("warp", [REDUCED, Warp(1.5, 8.0, (3.0, 0.0), (4.0, 2.0))], ids=["zoom out", "zoom in"])
def test_density_keeps_its_count(warp: Warp) -> None:
    blobs = torch.zeros(SIZE)
    for point in torch.rand(30, 2) * 24 + torch.tensor([52.0, 36.0]):
        blob = torch.exp(-((distance(point) / 2) ** 2) / 2)
        blobs += blob / blob.sum()
    _, moved = apply_change(Change(warp=warp), torch.rand(3, *SIZE), blobs, "density", 0.0)
    assert float(moved.sum()) == pytest.approx(30, rel=0.005)
    assert float(moved.max()) != pytest.approx(float(blobs.max()), rel=0.1)


@pytest.mark.parametrize("kind", ["values", "pixels"])
def test_missing_values_neither_vanish_nor_spread(kind: TargetKind) -> None:
    missing = torch.rand(SIZE) < 0.11
    for index in range(8):
        change = replace(draw_change(STRONG, (0, 0, index), SIZE), look=None)
        image = torch.rand(3, *SIZE)
        full = apply_change(change, image, torch.full(SIZE, 7.0), kind, 0.0)[1]
        holed = apply_change(change, image, torch.where(missing, torch.nan, 7.0), kind, 0.0)[1]
        # Known pixels are exactly those whose nearest pixel is known, and nothing but 7 is made of sevens.
        labels = apply_change(change, image, missing.long(), "labels", 255.0)[1]
        assert torch.equal(full.isnan(), labels == 255)
        assert torch.equal(holed.isnan(), labels != 0)
        assert holed[~full.isnan()].isnan().float().mean() == pytest.approx(0.11, abs=0.03)
        torch.testing.assert_close(holed[~holed.isnan()], torch.full((int((labels == 0).sum()),), 7.0))


def test_values_are_not_mixed_and_heat_stays_a_probability() -> None:
    depth = torch.tensor([1.0, 2.0, 4.0])[torch.randint(0, 3, SIZE)]
    _, moved = augment(torch.rand(3, *SIZE), depth, STRONG, (0, 0, 3), "values", 0.0)
    assert set(moved[~moved.isnan()].unique().tolist()) == {1.0, 2.0, 4.0}
    _, heat = augment(torch.rand(3, *SIZE), torch.rand(2, *SIZE), STRONG, (0, 0, 3), "heat", 0.0)
    assert heat.shape == (2, *SIZE) and heat.min() >= 0 and heat.max() <= 1


# --- presets and keys -----------------------------------------------------------------------------------------------


def test_none_returns_the_very_same_tensors() -> None:
    image, target = torch.rand(3, *SIZE), torch.rand(SIZE)
    got = augment(image, target, AUGMENT["none"], (0, 0, 0), "heat", 0.0)
    assert got[0] is image and got[1] is target


def test_light_moves_the_frame_by_exact_flips_only() -> None:
    image, target = torch.rand(3, *SIZE), torch.rand(SIZE)
    flipped = 0
    for index in range(40):
        change = draw_change(AUGMENT["light"], (0, 0, index), SIZE)
        moved, moved_target = apply_change(change, image, target, "heat", 0.0)
        assert torch.equal(moved_target, target.flip(-1) if change.flip else target)
        assert not torch.equal(moved, image.flip(-1) if change.flip else image)  # the colours did change
        plain = apply_change(replace(change, look=None), image, target, "heat", 0.0)[0]
        assert torch.equal(plain, image.flip(-1) if change.flip else image)
        flipped += change.flip
    assert 8 < flipped < 32


@pytest.mark.parametrize("preset", AUGMENT)
def test_inputs_are_not_modified(preset: str) -> None:
    image, target = torch.rand(3, *SIZE), torch.rand(SIZE)
    before = image.clone(), target.clone()
    for index in range(6):
        for kind in ("heat", "density", "values", "pixels"):
            moved, moved_target = augment(image, target, AUGMENT[preset], (0, 0, index), kind, 0.0)
            assert moved.dtype == torch.float32 and moved.min() >= 0 and moved.max() <= 1
            assert moved.shape == image.shape and moved_target.shape == target.shape
            assert type(moved) is torch.Tensor and type(moved_target) is torch.Tensor
    assert torch.equal(image, before[0]) and torch.equal(target, before[1])


def test_a_change_is_determined_by_its_key() -> None:
    once = draw_change(STRONG, (1, 2, 3), SIZE)
    assert pickle.loads(pickle.dumps(once)) == draw_change(STRONG, (1, 2, 3), SIZE) == once
    others = {draw_change(STRONG, key, SIZE) for key in ((1, 2, 4), (1, 3, 3), (2, 2, 3))}
    assert len(others | {once}) == 4
    pale = draw_change(replace(STRONG, brightness=0.0, hue=0.0, noise=0.0), (1, 2, 3), SIZE)
    assert (pale.flip, pale.warp) == (once.flip, once.warp)


def test_drawn_changes_keep_to_their_strengths_and_their_window() -> None:
    edge = torch.tensor([[-0.5, -0.5], [SIZE[1] - 0.5, SIZE[0] - 0.5]])
    upright = replace(STRONG, rotation=0.0, shear=0.0, flip=0.0)
    scales, grey = [], 0
    for index in range(200):
        change = draw_change(upright, (0, 0, index), SIZE)
        assert change.warp is not None
        scales.append(change.warp.scale)
        (left, top), (right, bottom) = move_points(change, edge, SIZE).tolist()
        sides = [left + 0.5, top + 0.5, SIZE[1] - 0.5 - right, SIZE[0] - 0.5 - bottom]
        assert all(side <= 1e-3 for side in sides) or all(side >= -1e-3 for side in sides)
        drawn = draw_change(STRONG, (0, 0, index), SIZE)
        assert drawn.warp is not None and abs(drawn.warp.angle) <= 10 and max(map(abs, drawn.warp.shear)) <= 4
        assert drawn.look is not None and max(abs(drawn.look.brightness - 1), abs(drawn.look.contrast - 1)) <= 0.3
        grey += drawn.look.saturation == 0
    assert 0.8 <= min(scales) < 0.85 and 1.5 < max(scales) <= 1.6 and 8 < grey < 35


class Samples(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(index)
        image, target = (torch.rand(shape, generator=generator) for shape in (self.shape, self.shape[1:]))
        return augment(image, target, STRONG, (0, 0, 30 + index), "heat", 0.0)


# In a large image of one channel, torch's own mean depends on the number of threads.
@pytest.mark.parametrize("shape", [(3, 192, 256), (1, 480, 640)])
def test_samples_do_not_depend_on_workers_or_threads(shape: tuple[int, int, int]) -> None:
    looks = [draw_change(STRONG, (0, 0, 30 + index), SIZE).look for index in range(12)]
    assert any(look and look.noise for look in looks) and any(look and look.blur for look in looks)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(4)  # loader workers always have one
        alone = list(DataLoader(Samples(shape), batch_size=4))
    finally:
        torch.set_num_threads(threads)
    shared = list(DataLoader(Samples(shape), batch_size=4, num_workers=2, timeout=60))
    for one, other in zip(alone, shared, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


def test_image_pairs_keep_their_colours() -> None:
    image = torch.rand(3, *SIZE)
    still = replace(draw_change(STRONG, (0, 0, 3), SIZE), warp=None, flip=False)
    assert still.look is not None
    assert torch.equal(apply_change(still, image, image, "pixels", 0.0)[0], image)
    assert not torch.equal(apply_change(still, image, image[0], "heat", 0.0)[0], image)


# --- the look -------------------------------------------------------------------------------------------------------


def look_of(image: torch.Tensor, look: Look) -> torch.Tensor:
    target = torch.zeros(image.shape[-2:])
    moved, kept = apply_change(Change(look=look), image, target, "heat", 0.0)
    assert kept is target
    return moved


def test_brightness_contrast_and_saturation_are_those_of_torchvision() -> None:
    image = 0.4 + 0.2 * torch.rand(3, *SIZE)  # no value is clipped at 0 or 1
    wanted = torchvision_functional.adjust_brightness(image, 1.2)
    wanted = torchvision_functional.adjust_contrast(wanted, 0.7)
    wanted = torchvision_functional.adjust_saturation(wanted, 1.3)
    got = look_of(image, Look(brightness=1.2, contrast=0.7, saturation=1.3))
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=0)  # its luma weights sum to 0.9999


def test_hue_turns_the_colour_circle_and_keeps_luma_and_grey() -> None:
    image = 0.4 + 0.2 * torch.rand(3, *SIZE)
    luma = torch.tensor([0.299, 0.587, 0.114])
    got = look_of(image, Look(hue=18.0))
    torch.testing.assert_close(torch.tensordot(luma, got, 1), torch.tensordot(luma, image, 1))
    hues = [rgb_to_hsv(rgb.permute(1, 2, 0).numpy())[..., 0] * 360 for rgb in (image, got)]
    turned = (hues[1] - hues[0] + 180) % 360 - 180
    assert turned.min() > 10 and turned.max() < 30 and turned.mean() == pytest.approx(18, abs=2)
    grey = torch.rand(1, *SIZE).expand(3, -1, -1)
    torch.testing.assert_close(look_of(grey, Look(hue=18.0)), grey, atol=1e-5, rtol=0)


def test_no_saturation_is_grey() -> None:
    got = look_of(torch.rand(3, *SIZE), Look(saturation=0.0, hue=12.0))
    torch.testing.assert_close(got, got[:1].expand(3, -1, -1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels_change_in_brightness_and_contrast_only(channels: int) -> None:
    image = 0.4 + 0.2 * torch.rand(channels, *SIZE)
    got = look_of(image, Look(brightness=1.2, contrast=0.7, saturation=0.1, hue=40.0))
    torch.testing.assert_close(got, 1.2 * (0.7 * image + 0.3 * image.mean()))


def test_blur_is_that_of_torchvision_and_noise_has_its_strength_and_its_own_generator() -> None:
    image = torch.full((3, *SIZE), 0.5)
    before = torch.get_rng_state()
    noisy = look_of(image, Look(noise=0.03, noise_seed=7)) - image
    again = look_of(image, Look(noise=0.03, noise_seed=7)) - image
    other = look_of(image, Look(noise=0.03, noise_seed=8)) - image
    assert float(noisy.std()) == pytest.approx(0.03, rel=0.05)
    assert torch.equal(noisy, again) and not torch.equal(noisy, other)
    assert torch.equal(torch.get_rng_state(), before)
    sharp = torch.rand(3, *SIZE)
    wanted = torchvision_functional.gaussian_blur(sharp, [5, 5], [0.9, 0.9])
    torch.testing.assert_close(look_of(sharp, Look(blur=0.9)), wanted)


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "kind", "fill", "words"),
    [
        (torch.rand(48, 64), "heat", 0.0, "96x128.*48x64"),
        (torch.zeros(SIZE, dtype=torch.uint8), "labels", -1.0, "fill -1 does not fit.*uint8"),
        (torch.zeros(SIZE, dtype=torch.bool), "masks", 255.0, "fill 255 does not fit.*bool"),
        (torch.zeros(SIZE, dtype=torch.uint8), "density", 0.0, "'density' is torch.uint8"),
    ],
)
def test_mismatched_targets_are_refused(target: torch.Tensor, kind: TargetKind, fill: float, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        augment(torch.rand(3, *SIZE), target, STRONG, (0, 0, 0), kind, fill)
