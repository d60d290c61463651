"""FolderData: layouts, pairing, reading, the decoded cache and the check."""

import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from densemble.config import make_config
from densemble.data.decoded_cache import decode_split
from densemble.data.folder import FolderData
from densemble.data.targets import resize_target
from densemble.errors import DataError, UsageError


def write(folder: Path, stems: list[str], size: tuple[int, int] = (24, 32), labels: int = 3) -> None:
    random = np.random.default_rng(0)
    for kind in ("images", "targets"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for stem in stems:
        Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / "images" / f"{stem}.jpg")
        Image.fromarray(random.integers(0, labels, size, dtype=np.uint8)).save(folder / "targets" / f"{stem}.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "train", ["b", "a", "c"])
    write(tmp_path / "val", ["d", "e"])
    return tmp_path


def test_pairs_are_matched_by_stem(folder: Path) -> None:
    data = FolderData(folder, "segmentation")
    assert [sample.stem for sample in data.train] == ["a", "b", "c"]
    assert all(sample.image.stem == sample.target.stem for sample in (*data.train, *data.val))
    assert data.task.out_channels == 3


def test_a_folder_without_a_split_gets_a_seeded_one(tmp_path: Path) -> None:
    write(tmp_path, [f"{i:02d}" for i in range(10)])
    one, same, other = (FolderData(tmp_path, "segmentation", seed=seed) for seed in (0, 0, 1))
    assert len(one.val) == 2 and len(one.train) == 8 and not set(one.val) & set(one.train)
    assert one.val == same.val
    assert one.val != other.val


def test_unpaired_files_are_a_named_error_or_are_skipped_on_request(folder: Path) -> None:
    (folder / "train" / "targets" / "b.png").unlink()
    with pytest.raises(DataError, match=r"1 files.*train/images/b\.jpg.*skip_unpaired"):
        FolderData(folder, "segmentation")
    assert len(FolderData(folder, "segmentation", skip_unpaired=True).train) == 2


def test_two_files_of_one_stem_are_refused(folder: Path) -> None:
    Image.new("RGB", (32, 24)).save(folder / "train" / "images" / "a.png")
    with pytest.raises(DataError, match="same stem"):
        FolderData(folder, "segmentation")


def test_unequal_sizes_are_an_error_with_both_sizes(folder: Path) -> None:
    Image.new("L", (16, 12)).save(folder / "train" / "targets" / "a.png")
    data = FolderData(folder, "segmentation")
    with pytest.raises(DataError, match=r"24x32.*12x16"):
        data.read_pair(data.train[0])


def test_palette_labels_keep_their_indices(folder: Path) -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8)).convert("P")
    image.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0] + [0] * 759)
    image.putdata([0, 1, 2, 1])
    image.save(folder / "train" / "targets" / "a.png")
    labels = FolderData(folder, "segmentation").read_target(FolderData(folder, "segmentation").train[0])
    assert labels.tolist() == [[0, 1], [2, 1]]


def test_labels_outside_the_classes(folder: Path) -> None:
    data = FolderData(folder, "segmentation", classes=["x", "y"])
    with pytest.raises(DataError, match=r"labels 2 outside the 2 classes.*ignore_index=2"):
        data.read_target(data.train[0])


def test_sixteen_bit_depth_keeps_its_numbers(tmp_path: Path) -> None:
    write(tmp_path / "train", ["a"])
    write(tmp_path / "val", ["b"])
    values = np.arange(24 * 32, dtype=np.uint16).reshape(24, 32) * 50
    for split, stem in (("train", "a"), ("val", "b")):
        Image.fromarray(values).save(tmp_path / split / "targets" / f"{stem}.png")
    data = FolderData(tmp_path, "depth", scale=0.001)
    np.testing.assert_allclose(data.read_target(data.train[0]), values * 0.001, rtol=1e-6)
    valid = values[values > 0] * 0.001
    assert data.task.describe()["scale"] == pytest.approx(valid.mean(), rel=1e-4)


def test_truncated_jpeg_is_named(folder: Path) -> None:
    path = folder / "train" / "images" / "a.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"a\.jpg.*damaged or cut short"):
        FolderData(folder, "segmentation").read_image(FolderData(folder, "segmentation").train[0])


def test_exif_orientation_is_applied(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (32, 24)).save(folder / "train" / "images" / "a.jpg", exif=exif)
    assert FolderData(folder, "segmentation").read_image(FolderData(folder, "segmentation").train[0]).shape == (
        32,
        24,
        3,
    )


def test_empty_and_absent_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data folder"):
        FolderData(tmp_path / "absent", "saliency")
    with pytest.raises(DataError, match="train/images"):
        FolderData(tmp_path, "saliency")
    (tmp_path / "train" / "images").mkdir(parents=True)
    with pytest.raises(DataError, match="holds no images"):
        FolderData(tmp_path, "saliency")
    with pytest.raises(UsageError, match="no task"):
        FolderData(tmp_path, "saliancy")


def test_the_cache_holds_every_sample_once_and_is_reused(folder: Path, tmp_path: Path) -> None:
    data = FolderData(folder, "segmentation")
    cache = tmp_path / "cache"
    split = decode_split(data, "train", (12, 16), cache)
    assert split.images.shape == (3, 3, 12, 16) and split.targets.shape == (3, 12, 16)
    assert split.stems == ("a", "b", "c")
    labels = torch.from_numpy(data.read_target(data.train[1]))
    assert torch.equal(torch.from_numpy(np.array(split.targets[1])).long(), labels[1::2, 1::2])

    def refuse(*args: object) -> None:
        raise AssertionError("decoded again")

    data.read_pair = refuse  # type: ignore[method-assign, assignment]
    decode_split(data, "train", (12, 16), cache)
    with pytest.raises(AssertionError, match="decoded again"):
        decode_split(data, "train", (12, 20), cache)


def test_cache_notices_a_changed_file(folder: Path, tmp_path: Path) -> None:
    first = decode_split(FolderData(folder, "segmentation"), "train", (12, 16), tmp_path / "cache")
    Image.new("RGB", (32, 24), (255, 0, 0)).save(folder / "train" / "images" / "a.jpg")
    second = decode_split(FolderData(folder, "segmentation"), "train", (12, 16), tmp_path / "cache")
    assert not np.array_equal(first.images[0], second.images[0])


def test_cache_names_all_bad_files_and_leaves_nothing_behind(folder: Path, tmp_path: Path) -> None:
    for stem in "ac":
        (folder / "train" / "images" / f"{stem}.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"2 of 3 pairs.*a\.jpg.*c\.jpg"):
        decode_split(FolderData(folder, "segmentation"), "train", (12, 16), tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_resized_maps() -> None:
    labels = torch.from_numpy(np.random.default_rng(0).integers(0, 5, (37, 53)))
    assert set(resize_target(labels, (10, 11), "labels").unique().tolist()) <= set(range(5))
    assert torch.allclose(resize_target(torch.full((40, 60), 0.25), (7, 9), "heat"), torch.tensor(0.25))
    depth = torch.where(torch.arange(64).reshape(8, 8) % 2 == 1, 5.0, 0.0)
    assert set(resize_target(depth, (3, 3), "values").unique().tolist()) <= {0.0, 5.0}
    counts = torch.rand(2, 40, 60)
    torch.testing.assert_close(resize_target(counts, (7, 9), "density").sum((1, 2)), counts.sum((1, 2)))
    hole = torch.full((3, 40, 60), 0.5)
    hole[:, :8, :12] = torch.nan
    small = resize_target(hole, (10, 15), "pixels")
    assert small[:, :2, :3].isnan().all() and torch.allclose(small[:, 2:, 3:], torch.tensor(0.5))


def test_check_lists_all_problems_at_once(folder: Path) -> None:
    (folder / "train" / "images" / "a.jpg").write_bytes(b"no image")
    Image.new("L", (16, 12)).save(folder / "train" / "targets" / "b.png")
    (folder / "val" / "targets" / "e.png").unlink()
    facts = FolderData(folder, "segmentation", skip_unpaired=True, classes=["x", "y", "z"]).check()
    assert not facts["ok"]
    problems = {(problem["kind"], Path(problem["file"]).name) for problem in facts["problems"]}
    assert {("unreadable", "a.jpg"), ("unequal sizes", "b.png"), ("unpaired", "e.jpg")} <= problems


def test_reading_options_are_valid_for_another_folder(folder: Path, tmp_path: Path) -> None:
    """An artifact stores them as JSON: colour files and keys that are numbers must survive it."""
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255]], np.uint8)
    for split in ("train", "val"):
        for path in (folder / split / "targets").iterdir():
            Image.fromarray(colours[np.asarray(Image.open(path))]).save(path)
    (folder / "colours.txt").write_text("0,0,0,ground\n255,0,0,car\n0,0,255,tree\n")
    data = FolderData(folder, "segmentation", color_map="colours.txt", exif="ignore")
    (folder / "colours.txt").unlink()
    stored = json.loads(json.dumps(data.said))
    assert set(stored) == {"color_map", "exif"}
    again = FolderData(folder, "segmentation", **make_config({"task": "segmentation", "data": stored}).data)
    assert again.classes == data.classes == ["ground", "car", "tree"]
    assert all(np.array_equal(again.read_target(s), data.read_target(s)) for s in data.train)
    plain = FolderData(folder, "depth", label_map={3: 4}, scale=0.5)
    kept = make_config({"task": "depth", "data": json.loads(json.dumps(plain.said))}).data
    assert kept["label_map"] == {3: 4} and kept["scale"] == 0.5 and FolderData(folder, "depth").said == {}


def test_two_colours_of_one_class_and_a_void_colour(folder: Path) -> None:
    colours = np.array([[255, 255, 255], [255, 0, 0], [0, 0, 255]], np.uint8)
    for split in ("train", "val"):
        for path in (folder / split / "targets").iterdir():
            Image.fromarray(colours[np.asarray(Image.open(path))]).save(path)
    given = {"ground": [255, 255, 255], "car": [[255, 0, 0], [128, 0, 0]], "void": "#0000ff"}
    options = {"color_map": given, "classes": ["ground", "car"], "label_map": {2: 255}}
    data = FolderData(folder, "segmentation", **options)
    labels = data.read_target(data.train[0])
    assert set(np.unique(labels)) == {0, 1, 255} and data.task.out_channels == 2
    assert data.said["color_map"] == {
        "ground": [[255, 255, 255]],
        "car": [[255, 0, 0], [128, 0, 0]],
        "void": [[0, 0, 255]],
    }
    again = FolderData(folder, "segmentation", **{**options, "color_map": data.said["color_map"]})
    assert np.array_equal(again.read_target(again.train[0]), labels)


def test_no_pair_is_lost_when_splits_are_drawn(tmp_path: Path) -> None:
    write(tmp_path / "train", [f"{i:02d}" for i in range(20)])
    drawn = FolderData(tmp_path, "segmentation", test_fraction=0.2).layout
    assert {name: len(samples) for name, samples in drawn.splits.items()} == {"train": 12, "val": 4, "test": 4}
    assert drawn.split_by == "seed"
    write(tmp_path / "test", ["t1", "t2"])
    for options in ({"test_fraction": 0.2}, {"test_fraction": 0.2, "folds": 4}):
        layout = FolderData(tmp_path, "segmentation", **options).layout
        assert len(layout.splits["train"]) + len(layout.splits["val"]) == 20
        assert [sample.stem for sample in layout.splits["test"]] == ["t1", "t2"]


def test_leaving_pairs_out_does_not_change_the_split_of_the_others(tmp_path: Path) -> None:
    write(tmp_path, [f"{i:02d}" for i in range(20)])
    whole = FolderData(tmp_path, "segmentation")
    less = FolderData(tmp_path, "segmentation", leave_out=[whole.train[0].stem])
    assert less.val == whole.val and less.train == whole.train[1:]


def test_test_images_without_targets_are_valid(folder: Path) -> None:
    (folder / "test" / "images").mkdir(parents=True)
    Image.new("RGB", (32, 24)).save(folder / "test" / "images" / "x.jpg")
    assert set(FolderData(folder, "segmentation").layout.splits) == {"train", "val"}


def test_points_in_an_npy(tmp_path: Path) -> None:
    write(tmp_path / "train", ["a"])
    write(tmp_path / "val", ["b"])
    for split, stem in (("train", "a"), ("val", "b")):
        (tmp_path / split / "targets" / f"{stem}.png").unlink()
        np.save(tmp_path / split / "targets" / f"{stem}.npy", np.array([[3.0, 5.0, 0.0], [20.0, 10.0, 1.0]]))
    data = FolderData(tmp_path, "heatmap")
    assert data.task.out_channels == 2
    maps = data.read_target(data.train[0])
    assert np.unravel_index(maps[1].argmax(), maps[1].shape) == (10, 20)


def test_unknown_and_wrong_options_are_named(folder: Path) -> None:
    for options, words in (
        ({"scal": 2}, "unknown key 'data.scal'; did you mean 'scale'"),
        ({"folds": 1}, "data.folds"),
    ):
        with pytest.raises(UsageError, match=words):
            FolderData(folder, "segmentation", **options)


def test_names_to_leave_out_may_be_in_a_file(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("b\n")
    for file in (tmp_path / "names.txt", str(tmp_path / "names.txt")):
        data = FolderData(folder, "segmentation", leave_out=file)
        assert [sample.stem for sample in data.train] == ["a", "c"]
        config = make_config({"task": "segmentation", "data": data.options})
        assert make_config(yaml.safe_load(config.to_yaml())).data["leave_out"] == str(file)


def test_the_signature_names_every_option_and_its_default(folder: Path) -> None:
    parameters = inspect.signature(FolderData).parameters
    assert list(parameters)[:2] == ["path", "task"]
    assert {n: p.default for n, p in list(parameters.items())[2:]} == make_config({"task": "depth"}).data
    assert all(f"{name}: " in (FolderData.__doc__ or "") for name in parameters)


def test_options_of_one_data_set_do_not_change_those_they_came_from(folder: Path) -> None:
    config = make_config({"task": "segmentation", "data": {"ignore_index": -1}})
    assert FolderData(folder, task="segmentation", **config.data).options["label_map"] == {-1: 255}
    assert config.data["label_map"] is None and config.data["ignore_index"] == -1
