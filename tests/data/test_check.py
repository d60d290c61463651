"""data check reports every broken data set with its remedy, the remedy fixes it, and valid data sets pass."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.broken_sets import BROKEN
from data.good_sets import heat, image_of, labels, photo, save, target_of, write_good
from PIL import Image

from densemble.commands.overrides import with_settings
from densemble.config import make_config
from densemble.data.check import check as check_folder
from densemble.data.check import guess_task, write_leave_out
from densemble.data.check.names import name_pairs
from densemble.data.folder import FolderData

GOOD = ("saliency", "segmentation", "multilabel", "regression", "depth", "heatmap", "image")


def check(folder: Path, task: str, **options: Any) -> dict[str, Any]:
    facts = check_folder(FolderData(folder, task, **{"skip_unpaired": True, **options}), "error")
    json.dumps(facts, allow_nan=False)
    return facts


def flags_of(remedy: str, task: str) -> dict[str, Any]:
    """The data options that the first alternative of a remedy sets, read as the command line reads them."""
    for alternative in re.split(r"; |, or ", remedy):
        flags = re.findall(r"--set ('[^']*'|[^\s,;]+)", alternative)
        if flags:
            settings = [shlex.split(flag)[0] for flag in flags]
            values = with_settings({"task": task}, settings)
            return {name: make_config(values).data[name] for name in values["data"]}
    return {}


@pytest.mark.parametrize("task", GOOD)
def test_a_good_set_has_no_problem(task: str, tmp_path: Path) -> None:
    facts = check(write_good(tmp_path, task), task)
    assert facts["problems"] == [] and facts["ok"]
    assert facts["layout"] == "images + targets"
    assert (facts["splits"]["train"]["pairs"], facts["splits"]["val"]["usable"]) == (4, 2)


def test_a_good_set_of_densities_has_no_problem(tmp_path: Path) -> None:
    facts = check(write_good(tmp_path, "heatmap"), "heatmap", heatmap="density")
    assert facts["problems"] == []
    assert facts["splits"]["train"]["points"] == {"total": 12.0, "lowest": 3.0, "highest": 3.0}


def test_named_keypoints_are_no_absent_classes(tmp_path: Path) -> None:
    assert check(write_good(tmp_path, "heatmap"), "heatmap", classes=["nose"])["problems"] == []


def test_at_least_sixty_broken_sets_are_tested() -> None:
    assert len(BROKEN) >= 60


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_set_is_reported_with_its_remedy(name: str, tmp_path: Path) -> None:
    case = BROKEN[name]
    case.spoil(write_good(tmp_path, case.task))
    facts = check(tmp_path, case.task, **case.options)
    reported = [problem for problem in facts["problems"] if problem["kind"] == case.kind]
    assert reported, facts["problems"]
    assert any(case.remedy in problem["remedy"] for problem in reported), reported
    assert {problem["severity"] for problem in reported} == {case.severity}
    assert facts["ok"] == (not any(problem["severity"] == "error" for problem in facts["problems"]))
    assert facts["ok"] == (case.severity == "warning"), facts["problems"]


@pytest.mark.parametrize("name", [name for name, case in BROKEN.items() if case.mends])
def test_the_flags_of_a_remedy_mend_the_set(name: str, tmp_path: Path) -> None:
    case = BROKEN[name]
    case.spoil(write_good(tmp_path, case.task))
    before = check(tmp_path, case.task, **case.options)
    flags = {}
    for problem in before["problems"]:
        if problem["kind"] == case.kind:
            flags |= flags_of(problem["remedy"], case.task)
    assert flags
    data = FolderData(tmp_path, case.task, **{**case.options, **flags})
    after = data.check()
    assert after["ok"], after["problems"]
    assert [problem for problem in after["problems"] if problem["kind"] == case.kind] == [] or case.kind == "unpaired"
    for sample in data.train:
        data.read_pair(sample)


def test_all_problems_are_found_at_once_and_errors_come_first(tmp_path: Path) -> None:
    write_good(tmp_path, "segmentation")
    names = ("image below 32 pixels", "map missing", "all void", "mirrored in val")
    target_of(tmp_path, "d").unlink()
    for name in names[:1]:
        BROKEN[name].spoil(tmp_path)
    save(target_of(tmp_path, "c"), np.full((48, 64), 255, np.uint8))
    save(image_of(tmp_path, "a"), photo(4)[:, ::-1])
    kinds = [problem["kind"] for problem in check(tmp_path, "segmentation")["problems"]]
    assert kinds == ["unpaired", "empty map", "near-duplicate", "small image"]


def test_skipped_unpaired_files_are_a_warning(tmp_path: Path) -> None:
    BROKEN["map missing"].spoil(write_good(tmp_path, "segmentation"))
    facts = FolderData(tmp_path, "segmentation", skip_unpaired=True).check()
    assert facts["ok"] and [problem["severity"] for problem in facts["problems"]] == ["warning"]


def test_copies_in_a_drawn_split_are_grouped(tmp_path: Path) -> None:
    """Frames of a video: validation images are drawn from the training images, and a frame falls into each split."""
    for split, names in {"train": ("x1", "x2", "x3", "x4", "y1", "y2", "y3", "y4"), "val": ("z1",)}.items():
        for name in names:
            save(
                tmp_path / split / "images" / f"{name}.png",
                (photo("xyz".index(name[0])) // 2 + int(name[1])).astype(np.uint8),
            )
            save(tmp_path / split / "targets" / f"{name}.png", labels(0))
    leaks = [
        problem
        for problem in check(tmp_path, "segmentation", val_from_train=0.5)["problems"]
        if problem["kind"] == "near-duplicate"
    ]
    assert leaks
    for problem in leaks:
        assert "data.group_by=EXPRESSION" in problem["remedy"] and "--leave-out" not in problem["remedy"]
    assert check(tmp_path, "segmentation", val_from_train=0.5, group_by="^.")["ok"]


def test_the_leave_out_file_names_training_images_and_fixes_all_errors(tmp_path: Path) -> None:
    folder = write_good(tmp_path / "set", "segmentation")
    BROKEN["image in train and val"].spoil(folder)
    target_of(folder, "f").write_bytes(b"")
    BROKEN["image below 32 pixels"].spoil(folder)  # a warning: it stays
    save(image_of(folder, "b"), photo(4))
    save(target_of(folder, "b"), labels(1))
    facts = check(folder, "segmentation")
    assert write_leave_out(facts, tmp_path / "leaks.txt") == 2
    assert (tmp_path / "leaks.txt").read_text() == "b\nf\n"
    assert check(folder, "segmentation", leave_out=str(tmp_path / "leaks.txt"))["ok"]


def test_a_name_with_pattern_characters_matches_only_itself(tmp_path: Path) -> None:
    write_good(tmp_path, "segmentation")
    for kind, array in (("images", photo(9)), ("targets", np.full((48, 64), 255, np.uint8))):
        save(tmp_path / "train" / kind / "[a]*.png", array)
    problem = check(tmp_path, "segmentation")["problems"][0]
    left = FolderData(tmp_path, "segmentation", **flags_of(problem["remedy"], "segmentation"))
    assert [sample.stem for sample in left.train] == ["a", "b", "c", "d"]


def test_pairs_are_named_with_their_split_if_stems_occur_twice(tmp_path: Path) -> None:
    write_good(tmp_path, "segmentation")
    for kind, array in (("images", photo(9)), ("targets", labels(9))):
        save(tmp_path / "val" / kind / "a.png", array)
    named = name_pairs(FolderData(tmp_path, "segmentation").layout)
    assert [name for name, _ in named["train"]] == ["train/a", "b", "c", "d"]
    assert [name for name, _ in named["val"]] == ["val/a", "e", "f"]


@pytest.mark.parametrize("task", ["saliency", "segmentation", "multilabel", "depth", "heatmap", "image"])
def test_the_task_is_guessed_from_the_targets(task: str, tmp_path: Path) -> None:
    assert guess_task(write_good(tmp_path, task))[0] == task


def test_facts_of_values_and_images_equal_those_of_numpy(tmp_path: Path) -> None:
    write_good(tmp_path, "depth")
    values = (300 + 500 * heat(1)).astype(np.uint16)
    values[:7] = 0
    save(target_of(tmp_path, "b"), values)
    facts = check(tmp_path, "depth", scale=0.01)
    every = np.stack([np.asarray(Image.open(target_of(tmp_path, stem))) for stem in "abcd"]) * 0.01
    train = facts["splits"]["train"]
    assert train["invalid_share"] == pytest.approx(7 * 64 / (4 * 48 * 64), abs=1e-5)
    assert train["values"] == pytest.approx([every[every > 0].min(), every.max()])
    assert train["mean"] == pytest.approx(every[every > 0].mean())
    assert train["percentiles"]["50"] == pytest.approx(np.median(every[every > 0]), rel=1e-3)
    images = np.stack([np.asarray(Image.open(image_of(tmp_path, stem))) for stem in "abcdef"]) / 255
    assert facts["pictures"]["mean"] == pytest.approx(images.mean((0, 1, 2)), abs=1e-5)
    assert facts["pictures"]["std"] == pytest.approx(images.std((0, 1, 2)), abs=1e-5)


def test_facts_of_classes(tmp_path: Path) -> None:
    write_good(tmp_path, "segmentation")
    save(target_of(tmp_path, "a"), np.repeat([0, 1, 255, 255], 12 * 64).reshape(48, 64).astype(np.uint8))
    facts = check(tmp_path, "segmentation", classes=["sky", "road", "car"])
    every = np.stack([np.asarray(Image.open(target_of(tmp_path, stem))) for stem in "abcd"])
    train = facts["splits"]["train"]
    assert train["ignored_share"] == pytest.approx(0.125)
    assert train["label_share"]["2"] == pytest.approx((every == 2).mean(), abs=1e-5)
    assert train["class_share"]["car"] == pytest.approx((every == 2).sum() / (every != 255).sum(), abs=1e-6)
    assert train["class_pictures"] == {"sky": 4, "road": 4, "car": 3}


def test_facts_of_masks(tmp_path: Path) -> None:
    write_good(tmp_path, "multilabel")
    train = check(tmp_path, "multilabel")["splits"]["train"]
    every = np.stack([np.load(target_of(tmp_path, stem)) for stem in "abcd"])
    shares = every.mean((0, 1, 2))
    assert list(train["class_share"].values()) == pytest.approx(shares, abs=1e-6)


@pytest.mark.slow
def test_camvid_is_clean_and_its_void_and_classes_are_right(shared_data: Any) -> None:
    folder = shared_data("segmentation-camvid")
    facts = FolderData(folder, "segmentation", ignore_index=11).check()
    assert facts["ok"] and facts["problems"] == []
    for split, pairs in (("train", 367), ("val", 101)):
        counts = np.zeros(12)
        for file in (folder / split / "targets").glob("*.png"):
            counts += np.array(Image.open(file).histogram()[:12])
        split_facts = facts["splits"][split]
        assert split_facts["pairs"] == split_facts["usable"] == pairs
        assert split_facts["ignored_share"] == pytest.approx(counts[11] / counts.sum(), abs=1e-5)
        assert list(split_facts["class_share"].values()) == pytest.approx(counts[:11] / counts[:11].sum(), abs=1e-6)


@pytest.mark.slow
def test_redkitchen_is_clean_and_its_invalid_depth_is_right(shared_data: Any) -> None:
    folder = shared_data("depth-redkitchen")
    facts = FolderData(folder, "depth").check()
    assert facts["ok"] and [problem["kind"] for problem in facts["problems"]] == ["unit"]
    zeros = {
        split: np.mean([(np.asarray(Image.open(file)) == 0).mean() for file in (folder / split / "targets").iterdir()])
        for split in ("train", "val")
    }
    shares = {split: facts["splits"][split]["invalid_share"] for split in zeros}
    assert shares == pytest.approx(zeros, abs=1e-5)
    assert (160 * shares["train"] + 30 * shares["val"]) / 190 == pytest.approx(0.11, abs=0.01)


@pytest.mark.slow
def test_osie_is_clean(shared_data: Any) -> None:
    facts = FolderData(shared_data("saliency-osie"), "saliency").check()
    assert facts["ok"] and facts["problems"] == []
    assert [facts["splits"][split]["with_fixations"] for split in ("train", "val")] == [480, 80]


def dots(number: int) -> Any:
    counts = np.zeros((48, 64), np.float32)
    np.add.at(counts, tuple(np.random.default_rng(number).integers(0, 12, (2, 30)) * 4), 1)
    return counts


@pytest.mark.parametrize(
    ("task", "options", "map_of", "suffix"),
    [
        ("saliency", {}, lambda n: (heat(n) * 7).astype(np.uint8), ".png"),  # dark, in steps of one
        ("saliency", {}, lambda n: np.where(heat(n) > 0.3, 255, 0).astype(np.uint8), ".png"),  # salient objects
        ("saliency", {}, lambda n: (np.rint(heat(n) * 5) * 51).astype(np.uint8), ".png"),  # votes of five people
        ("heatmap", {"heatmap": "density"}, dots, ".tif"),  # points counted per pixel
        ("depth", {}, lambda n: (1 + heat(n) * 30).astype(np.uint8), ".png"),  # whole metres
        ("depth", {"unit": "m"}, lambda n: labels(n) + 1, ".png"),  # walls in three distances
        ("regression", {"scale": 0.5}, labels, ".png"),  # grades
    ],
)
def test_heat_and_values_of_few_levels_are_no_labels(
    task: str, options: dict[str, Any], map_of: Any, suffix: str, tmp_path: Path
) -> None:
    write_good(tmp_path, task)
    for number, stem in enumerate("abcdef"):
        save(target_of(tmp_path, stem).with_suffix(suffix), map_of(number))
    kinds = {problem["kind"] for problem in check(tmp_path, task, **options)["problems"]}
    assert not {"labels as heat", "labels as values", "labels as density"} & kinds
