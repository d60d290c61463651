"""Reading: files become targets in the format of the task."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.good_sets import SIZE, image_of, labels, photo, save, target_of, write_good, write_points
from PIL import Image
from tifffile import imwrite

from densemble.data.decoded_cache import decode_split
from densemble.data.folder import FolderData
from densemble.engines.configure import open_data
from densemble.errors import DataError

TURNS = {
    2: lambda x: x[:, ::-1],
    3: lambda x: np.rot90(x, 2),
    4: lambda x: x[::-1],
    5: lambda x: np.swapaxes(x, 0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: np.rot90(x, 2).swapaxes(0, 1),
    8: lambda x: np.rot90(x, 1),
}


def first(folder: Path, task: str, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    data = FolderData(folder, task, **options)
    return data.read_pair(data.train[0])


def turned_set(folder: Path, orientation: int) -> Path:
    """A set whose first image is stored rotated, with a target that is rotated like the stored pixels."""
    write_good(folder, "segmentation")
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(image_of(folder, "a"), photo(0), exif=exif)
    return folder


@pytest.mark.parametrize("orientation", TURNS)
def test_both_turns_the_target_like_its_image(orientation: int, tmp_path: Path) -> None:
    image, target = first(turned_set(tmp_path, orientation), "segmentation", exif="both")
    np.testing.assert_array_equal(image, TURNS[orientation](photo(0)))
    np.testing.assert_array_equal(target, TURNS[orientation](labels(0)))


@pytest.mark.parametrize("orientation", TURNS)
def test_auto_turns_the_target_only_if_this_makes_it_fit(orientation: int, tmp_path: Path) -> None:
    image, target = first(turned_set(tmp_path, orientation), "segmentation")
    np.testing.assert_array_equal(image, TURNS[orientation](photo(0)))
    expected = TURNS[orientation](labels(0)) if orientation >= 5 else labels(0)
    np.testing.assert_array_equal(target, expected)


def test_ignore_leaves_both_as_they_are_stored(tmp_path: Path) -> None:
    image, target = first(turned_set(tmp_path, 6), "segmentation", exif="ignore")
    np.testing.assert_array_equal(image, photo(0))
    np.testing.assert_array_equal(target, labels(0))


@pytest.mark.parametrize(("exif", "shape"), [("auto", (64, 48)), ("ignore", (48, 64))])
def test_points_are_drawn_at_the_size_of_their_image(exif: str, shape: tuple[int, int], tmp_path: Path) -> None:
    write_good(tmp_path, "heatmap")
    tag = Image.Exif()
    tag[0x0112] = 6
    save(image_of(tmp_path, "a"), photo(0), exif=tag)
    write_points(target_of(tmp_path, "a"), [(5, 40)])
    data = FolderData(tmp_path, "heatmap", exif=exif)
    assert data.read_target(data.train[0]).shape == (1, *shape)
    assert data.read_pair(data.train[0])[1].shape == (1, *shape)


def test_planes_of_a_turned_image_are_turned(tmp_path: Path) -> None:
    write_good(tmp_path, "multilabel")
    tag = Image.Exif()
    tag[0x0112] = 8
    save(image_of(tmp_path, "a"), photo(0), exif=tag)
    stored = np.load(target_of(tmp_path, "a"))
    _, masks = first(tmp_path, "multilabel")
    np.testing.assert_array_equal(masks, np.moveaxis(np.rot90(stored, 1), -1, 0))


def test_labels_are_renamed_all_at_once(tmp_path: Path) -> None:
    write_good(tmp_path, "segmentation")
    _, target = first(tmp_path, "segmentation", label_map={0: 1, 1: 0, 2: 255})
    np.testing.assert_array_equal(target, np.array([1, 0, 255])[labels(0)])


def test_colours_become_the_numbers_of_their_map(tmp_path: Path) -> None:
    write_good(tmp_path, "segmentation")
    colours = np.array([[9, 8, 7], [250, 0, 1], [0, 0, 255]], np.uint8)
    save(target_of(tmp_path, "a"), colours[labels(0)])
    given = {"car": "#fa0001", "sky": [9, 8, 7], "road": [0, 0, 255]}
    _, target = first(tmp_path, "segmentation", color_map=given)
    np.testing.assert_array_equal(target, np.array([1, 0, 2])[labels(0)])
    with pytest.raises(DataError, match="#0000ff"):
        first(tmp_path, "segmentation", color_map={"car": "#fa0001", "sky": [9, 8, 7]})


def test_a_colour_beyond_the_named_classes_is_refused(tmp_path: Path) -> None:
    write_good(tmp_path, "segmentation")
    colours = np.array([[9, 8, 7], [250, 0, 1], [0, 0, 255]], np.uint8)
    save(target_of(tmp_path, "a"), colours[labels(0)])
    given = {"a": [9, 8, 7], "b": [250, 0, 1], "c": [0, 0, 255]}
    with pytest.raises(DataError, match=r"requested classes are a, b, those of .* are a, b, c \(not requested: c\)"):
        first(tmp_path, "segmentation", color_map=given, classes=["a", "b"])


@pytest.mark.parametrize("other", [127, 2])
def test_a_mask_of_another_grey_is_refused_not_dropped(other: int, tmp_path: Path) -> None:
    write_good(tmp_path, "multilabel")
    masks = np.load(target_of(tmp_path, "a"))
    save(target_of(tmp_path, "a"), masks * other)
    with pytest.raises(DataError, match=f"hold {other};.*label_map={{{other}: 1}}"):
        first(tmp_path, "multilabel")
    save(target_of(tmp_path, "a"), np.where(masks == 1, 255, np.roll(masks, 5, 0) * other).astype(np.uint8))
    with pytest.raises(DataError, match=f"hold {other}"):
        first(tmp_path, "multilabel")


def test_black_and_white_masks_are_ones_and_unknown_stays_unknown(tmp_path: Path) -> None:
    write_good(tmp_path, "multilabel")
    masks = np.load(target_of(tmp_path, "a"))
    save(target_of(tmp_path, "a"), masks * 255)
    np.testing.assert_array_equal(first(tmp_path, "multilabel")[1], np.moveaxis(masks, -1, 0))
    masks[:3, :3] = 255
    save(target_of(tmp_path, "a"), masks)
    np.testing.assert_array_equal(first(tmp_path, "multilabel")[1], np.moveaxis(masks, -1, 0))


@pytest.mark.parametrize(("top", "dtype"), [(1, np.float32), (255, np.uint8), (65535, np.uint16)])
def test_heat_is_read_from_0_to_1_at_every_depth(top: float, dtype: type, tmp_path: Path) -> None:
    write_good(tmp_path, "saliency")
    ramp = np.linspace(0, 1, SIZE[0] * SIZE[1]).reshape(SIZE)
    save(target_of(tmp_path, "a").with_suffix(".npy"), (ramp * top).astype(dtype))
    np.testing.assert_allclose(first(tmp_path, "saliency")[1], ramp, atol=1.01 / max(top, 1e6 if top == 1 else top))


def test_targets_of_another_size_are_resized_only_on_request(tmp_path: Path) -> None:
    write_good(tmp_path, "segmentation")
    save(target_of(tmp_path, "a"), labels(0)[::2, ::2])
    with pytest.raises(DataError, match=r"48x64.*24x32.*resize_targets=true"):
        first(tmp_path, "segmentation")
    _, target = first(tmp_path, "segmentation", resize_targets=True)
    np.testing.assert_array_equal(target, labels(0)[::2, ::2].repeat(2, 0).repeat(2, 1))


def test_bands_are_selected_in_order_and_missing_ones_named(tmp_path: Path) -> None:
    write_good(tmp_path, "segmentation")
    np.testing.assert_array_equal(first(tmp_path, "segmentation", bands=[2, 0])[0], photo(0)[..., [2, 0]])
    with pytest.raises(DataError, match=r"has 3 channels.*asks for number 3"):
        first(tmp_path, "segmentation", bands=[3])


def test_images_as_maps_keep_grey_grey(tmp_path: Path) -> None:
    write_good(tmp_path, "image")
    for stem in "abcdef":
        save(target_of(tmp_path, stem), photo(3)[..., 0])
    data = FolderData(tmp_path, "image")
    assert data.task.out_channels == 1
    np.testing.assert_allclose(data.read_pair(data.train[0])[1], photo(3)[None, ..., 0] / 255, atol=1e-6)


# --- what counts as 1 -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "peaks", "full"),
    [
        ("float32", (1.0, 1.2, 0.3), 1.2),
        ("float32", (0.9, 0.5, 0.3), 1.0),
        ("uint16", (65535, 200, 1), 65535),
        ("uint16", (255, 200, 1), 255),
        ("uint8", (255, 1, 0), 255),
        ("uint8", (1, 1, 0), 1),
    ],
)
@pytest.mark.parametrize("task", ["saliency", "heatmap"])
def test_one_value_counts_as_1_in_all_maps(
    task: str, dtype: str, peaks: tuple[float, ...], full: float, tmp_path: Path
) -> None:
    write_good(tmp_path, "saliency")
    shape = SIZE if task == "saliency" else (*SIZE, 2)
    for number, stem in enumerate("abcdef"):
        values = np.zeros(shape, dtype)
        values[5, 7] = peaks[number % 3]
        save(target_of(tmp_path, stem).with_suffix(".npy"), values)
    data = FolderData(tmp_path, task)
    read = [float(data.read_target(sample).max()) for sample in (*data.train, *data.val)]
    assert read == pytest.approx([peak / full for peak in peaks] * 2)
    name = "float" if dtype == "float32" else dtype
    assert data.check()["heat_max"] == data.said["heat_max"] == {name: pytest.approx(full)}


def test_the_value_of_1_is_recorded_and_used_for_other_targets(tmp_path: Path) -> None:
    for place, peak in (("one", 1.2), ("two", 0.6), ("three", 2.0)):
        write_good(tmp_path / place, "saliency")
        for stem in "abcdef":
            save(
                target_of(tmp_path / place, stem).with_suffix(".npy"),
                np.eye(*SIZE, dtype=np.float32) * np.float32(peak),
            )
    data, config = open_data(tmp_path / "one", {"task": "saliency"})
    assert config.data["heat_max"] == {"float": pytest.approx(1.2)}
    two, _ = open_data(tmp_path / "two", {"task": "saliency", "data": data.said})
    assert two.read_target(two.train[0]).max() == pytest.approx(0.5)
    with pytest.raises(DataError, match=r"reaches 2, above 1\.2.*data\.heat_max=2"):
        first(tmp_path / "three", "saliency", **data.said)
    assert first(tmp_path / "three", "saliency", heat_max=4.0)[1].max() == pytest.approx(0.5)


# --- where there is no data -----------------------------------------------------------------------------------------


def holed_set(folder: Path, task: str) -> np.ndarray:
    """A good set whose first image marks its upper rows as no data."""
    write_good(folder, task)
    hole = np.zeros(SIZE, bool)
    hole[:9] = True
    stored = photo(0).astype(np.int16)
    stored[hole] = -9999
    tag = (42113, "s", 0, "-9999", True)
    save(image_of(folder, "a").with_suffix(".tif"), stored, photometric="rgb", extratags=[tag])
    return hole


@pytest.mark.parametrize("task", ["segmentation", "multilabel", "regression", "image"])
def test_a_map_is_unknown_where_its_image_holds_no_data(task: str, tmp_path: Path) -> None:
    write_good(tmp_path / "whole", task)
    expected = first(tmp_path / "whole", task)[1].astype(float)
    hole = holed_set(tmp_path / "holed", task)
    image, target = first(tmp_path / "holed", task, image_range=(-5, 300))
    assert (image[hole] == -5).all()
    np.testing.assert_array_equal(image[~hole], photo(0)[~hole])
    expected[..., hole] = 255 if task in ("segmentation", "multilabel") else np.nan
    np.testing.assert_array_equal(target, expected)
    data = FolderData(tmp_path / "holed", task, image_range=(-5, 300))
    decoded = decode_split(data, "train", SIZE, tmp_path / "cache")
    assert (decoded.images[0][:, hole] == 0).all()
    np.testing.assert_array_equal(decoded.targets[0], expected)


def test_facts_ignore_pixels_without_data(tmp_path: Path) -> None:
    hole = holed_set(tmp_path, "segmentation")
    facts = FolderData(tmp_path, "segmentation", image_range=(0, 255)).check()
    known = np.concatenate([photo(0)[~hole], *(photo(number).reshape(-1, 3) for number in range(1, 6))]) / 255
    assert facts["pictures"]["mean"] == pytest.approx(known.mean(0), abs=1e-5)
    assert facts["pictures"]["std"] == pytest.approx(known.std(0), abs=1e-5)
    assert facts["pictures"]["no_data_share"] == pytest.approx(hole.mean() / 6, abs=1e-5)
    assert facts["splits"]["train"]["ignored_share"] == pytest.approx(hole.mean() / 4, abs=1e-5)


def test_values_for_no_data_are_no_values(tmp_path: Path) -> None:
    write_good(tmp_path, "regression")
    ramp = np.linspace(-20, 20, SIZE[0] * SIZE[1], dtype=np.float32).reshape(SIZE)
    ramp[:9] = -9999
    for stem in "abcdef":
        target_of(tmp_path, stem).unlink()
        folder = image_of(tmp_path, stem).parents[1] / "targets"
        imwrite(folder / f"{stem}.tif", ramp, extratags=[(42113, "s", 0, "-9999", True)])
    data = FolderData(tmp_path, "regression")
    train = data.check()["splits"]["train"]
    assert train["values"] == pytest.approx([ramp[9:].min(), 20]) and train["mean"] == pytest.approx(ramp[9:].mean())
    assert data.task.describe()["scale"] == pytest.approx(np.abs(ramp[9:]).mean(), rel=1e-5)


@pytest.mark.parametrize(("task", "below"), [("regression", None), ("depth", 0.0)])
def test_negative_values_are_values_except_of_depth(task: str, below: float | None, tmp_path: Path) -> None:
    write_good(tmp_path, "regression")
    ramp = np.linspace(-1000, 1000, SIZE[0] * SIZE[1]).round().reshape(SIZE).astype(np.float32)
    for stem in "abcdef":
        save(target_of(tmp_path, stem).with_suffix(".npy"), ramp)
    data = FolderData(tmp_path, task)
    described = data.task.describe()
    assert described["invalid_below"] == below
    assert described.get("whole", True) == (task == "depth")  # a PNG has no negative numbers
    problems = [problem["kind"] for problem in data.check()["problems"] if "invalid_below" in problem["remedy"]]
    assert problems == (["negative values"] if task == "depth" else [])


@pytest.mark.parametrize(("highest", "whole"), [(65535, True), (70000, False)])
def test_values_beyond_16_bits_are_saved_as_floats(highest: int, whole: bool, tmp_path: Path) -> None:
    write_good(tmp_path, "regression")
    for stem in "abcdef":
        values = np.full(SIZE, highest, np.int32)
        values[: SIZE[0] // 2] = 100
        save(target_of(tmp_path, stem).with_suffix(".npy"), values)
    assert FolderData(tmp_path, "regression").task.describe().get("whole", True) == whole
