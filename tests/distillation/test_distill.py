"""Distillation of two small networks: soft targets, comparison, artifact, resuming, and data that does not fit."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_networks import SMALL

import densemble as de
from densemble.commands.distill import print_comparison
from densemble.distillation.comparison import best_member, compare
from densemble.distillation.student import resolve_student
from densemble.distillation.teacher import Teacher, unlabelled_files
from densemble.engines.member import Training
from densemble.engines.plan import sizes
from densemble.errors import ArtifactError, DataError, UsageError
from densemble.shapes import Array
from densemble.storage.artifact import describe
from densemble.storage.runs import RunFolder, read_json
from densemble.tasks import SegmentationTask
from densemble.training.callbacks import EpochRecord

STUDENT = {"backbone": SMALL, "weights": None, "head": "upsample", "name": "small"}
TRAINING = {"epochs": 1, "batch_size": 8, "precision": "fp32", "freeze_statistics": False}


def network(seed: int, channels: int = 1, **options: Any) -> de.DenseModel:
    torch.manual_seed(seed)
    sized = {"out_size": (12, 16), "input_size": (48, 64), **options}
    return de.DenseModel(SMALL, out_channels=channels, weights=None, head="upsample", **sized)


@pytest.fixture(scope="module")
def teacher() -> de.Ensemble:
    scores = {"members": {"one": {"cc": 0.2}, "two": {"cc": 0.4}}}
    members = {"one": network(0), "two": network(1)}
    return de.Ensemble(members, [3, 1], "saliency", metrics=scores, temperatures={"one": 0.5}).eval()


@pytest.fixture(scope="module")
def few(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six training and four validation scenes."""
    folder = tmp_path_factory.mktemp("few") / "data"
    for split, count in (("train", 6), ("val", 4)):
        for kind in ("images", "targets", "fixations"):
            (folder / split / kind).mkdir(parents=True)
            for file in sorted((scenes / split / kind).iterdir())[:count]:
                shutil.copy(file, folder / split / kind)
    return folder


@pytest.fixture(scope="module")
def photos(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three unlabelled images, and a copy of a validation image."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(5)
    for number in range(3):
        Image.fromarray(random.integers(0, 255, (40, 50, 3), np.uint8)).save(folder / f"{number}.png")
    shutil.copy(next((few / "val" / "images").iterdir()), folder / "copy.png")
    return folder


def soft_arrays(teacher: de.Ensemble, data: Path, out: Path, options: de.DistillOptions) -> tuple[Any, Any, Training]:
    from densemble.data.decoded_cache import decode_split

    folder, config = resolve_student(teacher, data, STUDENT, {"training": TRAINING})
    training = Training(folder, folder.task, config, RunFolder(out))
    train = decode_split(folder, "train", sizes(config, config.members[0]).image, training.cache)
    files = unlabelled_files(teacher, folder, options.unlabelled)
    return Teacher(teacher, "teacher", options, files).teach(training, train), train, training


def test_soft_targets_are_the_prediction_of_the_ensemble(
    teacher: de.Ensemble, few: Path, photos: Path, tmp_path: Path
) -> None:
    soft, train, training = soft_arrays(teacher, few, tmp_path, de.DistillOptions(unlabelled=(photos,)))
    files = [*(sample.image for sample in training.data.train), *(photos / f"{number}.png" for number in range(3))]
    assert len(soft) == len(files) == len(train) + 3
    for index, file in enumerate(files):
        pixels: Array = np.asarray(Image.open(file).convert("RGB"))
        prediction = teacher.predict(pixels)
        np.testing.assert_allclose(soft.maps[index], prediction.mean[0], atol=1e-3)
    image = torch.from_numpy(np.array(Image.open(photos / "1.png"))).permute(2, 0, 1)[None].float() / 255
    resized = torch.nn.functional.interpolate(image, (48, 64), mode="bilinear", antialias=True)[0]
    np.testing.assert_allclose(soft.unlabelled[1] / 255, resized, atol=1 / 255)


def test_the_doubt_is_the_mutual_information_of_the_members(teacher: de.Ensemble, few: Path, tmp_path: Path) -> None:
    soft, _, training = soft_arrays(teacher, few, tmp_path, de.DistillOptions())
    pixels = np.asarray(Image.open(training.data.train[2].image).convert("RGB"))
    with torch.no_grad():
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
        one, two = (torch.sigmoid(network(seed).eval()(image) * factor) for seed, factor in ((0, 2), (1, 1)))

    def entropy(p: torch.Tensor) -> torch.Tensor:
        return torch.special.entr(p) + torch.special.entr(1 - p)

    full = entropy(0.75 * one + 0.25 * two) - 0.75 * entropy(one) - 0.25 * entropy(two)
    # The members' maps are resized before the mutual information is computed, so only its level is equal.
    assert float(soft.doubt[2].mean()) == pytest.approx(float(full.mean()), rel=0.1)
    assert soft.mean_doubt == pytest.approx(float(np.mean(soft.doubt)), rel=1e-5)


@pytest.fixture(scope="module")
def distilled(teacher: de.Ensemble, few: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> de.Distilled:
    out = tmp_path_factory.mktemp("distilled") / "student.safetensors"
    options = de.DistillOptions(unlabelled=(photos,))
    return de.distill(teacher, few, STUDENT, out, options, report=None, training=TRAINING)


def test_the_report_compares_four_models_on_images_that_the_student_did_not_see(distilled: de.Distilled) -> None:
    report = distilled.report
    assert list(report["models"]) == ["student", "labels alone", "best member", "ensemble"]
    assert (report["reported_on"], report["images"], report["ensemble_fitted_on_these_images"]) == ("val", 4, True)
    assert (report["training_images"], report["validation_images"], report["unlabelled_images"]) == (5, 1, 3)
    assert report["best_member"] == "two"
    assert read_json(distilled.run / "distillation.json")["models"] == report["models"]
    for values in report["models"].values():
        assert values["score"]["low"] <= values["score"]["value"] <= values["score"]["high"]
        assert values["milliseconds"] > 0


def test_the_table_names_the_images_and_the_models(distilled: de.Distilled, capsys: pytest.CaptureFixture[str]) -> None:
    share = {"over labels alone": {"value": 0.5, "low": 0.25, "high": 0.75},
             "over best member": {"value": None, "low": None, "high": None}}  # fmt: skip
    print_comparison({**distilled.report, "share_kept": share})
    first, heading, *rows, kept, nothing = capsys.readouterr().out.splitlines()
    assert first.startswith("4 val images") and "fitted on these images" in first
    assert heading.split()[:3] == ["cc", "low", "high"]
    assert [row.split("  ")[0] for row in rows] == ["student", "labels alone", "best member (two)", "ensemble"]
    assert kept.endswith("over labels alone that the student keeps: 50% (25% to 75%)")
    assert nothing == "the ensemble gains nothing over best member"


def test_the_student_is_an_ordinary_artifact(distilled: de.Distilled, few: Path) -> None:
    with pytest.raises(ArtifactError, match="--function"):
        de.load(distilled.path)
    student = de.load(distilled.path, functions=[SMALL])
    scores = de.evaluate(student, de.FolderData(few, "saliency"), "val")
    assert scores["cc"] == pytest.approx(distilled.report["models"]["student"]["cc"], abs=1e-6)
    assert describe(distilled.path)["metrics"]["distillation"]["share_kept"] == distilled.report["share_kept"]
    assert list(student.members) == ["small"] and student.out_size == (12, 16)


def test_the_students_of_both_runs_differ_and_the_teacher_is_unchanged(
    distilled: de.Distilled, teacher: de.Ensemble
) -> None:
    assert all(
        torch.equal(a, b) for a, b in zip(network(0).parameters(), teacher.members["one"].parameters(), strict=True)
    )
    first, second = (
        de.Run(run, functions=[SMALL]).leaderboard() for run in (distilled.run, distilled.run / "labels-alone")
    )
    assert first.loc["small", "kld"] != second.loc["small", "kld"]


def test_the_share_kept_is_the_gain_of_the_student_over_that_of_the_ensemble(teacher: de.Ensemble, few: Path) -> None:
    data = de.FolderData(few, "saliency")
    name, best = best_member(teacher)
    one, two = (de.Ensemble({"a": teacher.members[key]}, task="saliency").eval() for key in ("one", "two"))
    report = compare({"student": one, "labels alone": two, "best member": best, "ensemble": teacher}, data, "val")
    score = {model: de.evaluate(ensemble, data, "val")["cc"] for model, ensemble in
             (("student", one), ("labels alone", two), ("ensemble", teacher))}  # fmt: skip
    gain = score["ensemble"] - score["labels alone"]
    share = report["share_kept"]["over labels alone"]["value"]
    assert report["gains"]["ensemble over labels alone"]["value"] == pytest.approx(gain, abs=1e-6)
    if gain > 0:
        assert share == pytest.approx((score["student"] - score["labels alone"]) / gain, rel=1e-3)
    else:
        assert share is None
    assert name == "two" and report["times_as_fast"]["ensemble"] == 1.0


def test_copies_of_images_of_the_data_set_are_left_out(
    teacher: de.Ensemble, few: Path, photos: Path, lines: list[str]
) -> None:
    files = unlabelled_files(teacher, de.FolderData(few, "saliency"), [photos, photos / "0.png"])
    assert [file.name for file in files] == ["0.png", "1.png", "2.png"]
    assert any("1 unlabelled images are also images of" in line for line in lines)


def test_an_interrupted_distillation_resumes(
    densemble: Callable[..., Any], teacher: de.Ensemble, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = de.save(teacher, tmp_path / "teacher.safetensors")
    members = [f"--set=members.0.{key}={value}" for key, value in (("weights", "null"), ("head", "upsample"))]
    settings = [f"--set=training.{key}={value}" for key, value in {**TRAINING, "epochs": 2}.items()]
    out = tmp_path / "student.safetensors"
    command = ["distill", artifact, few, "--student", SMALL, "-o", out, "--no-baseline", "--json", "--function", SMALL]
    command += ["--set", "data.val_from_train=0.4"]
    write = EpochRecord.on_train_epoch_end

    def stop(record: EpochRecord, *arguments: Any) -> None:
        write(record, *arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(EpochRecord, "on_train_epoch_end", stop)
        stopped = densemble(*command, *members, *settings)
    assert stopped.returncode == 130 and "--resume" in stopped.stderr and not out.is_file()
    refused = densemble(*command, *members, *settings)
    assert refused.returncode == 2 and "--resume" in refused.stderr
    other = densemble(*command, *members, *settings, "--resume", "--label-share", 0.25)
    assert other.returncode == 2 and "label_share" in other.stderr
    done = densemble(*command, *members, *settings, "--resume")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert list(report["models"]) == ["student", "best member", "ensemble"] and list(report["share_kept"]) == [
        "over best member"
    ]
    assert (report["training_images"], report["validation_images"]) == (4, 2)
    (record,) = (tmp_path / "student").glob("members/*/metrics.csv")
    assert len(record.read_text().splitlines()) == 3
    assert not (tmp_path / "student" / "cache").exists()


def test_data_that_does_not_fit_is_refused(teacher: de.Ensemble, few: Path, tmp_path: Path) -> None:
    def refused(error: type[Exception], message: str, ensemble: de.Ensemble, data: Any, **options: Any) -> None:
        with pytest.raises(error, match=message):
            de.distill(
                ensemble, data, options.pop("student", STUDENT), tmp_path / "s.safetensors", report=None, **options
            )
        assert not (tmp_path / "s").exists()

    refused(UsageError, "opened for image, the ensemble predicts saliency", teacher, de.FolderData(few, "image"))
    five = de.Ensemble([network(0, in_channels=5)], task="saliency")
    refused(DataError, "have 3 channels, the ensemble takes 5", five, few)
    refused(UsageError, "one student, not 2", teacher, few, student={**STUDENT, "copies": 2})
    refused(UsageError, "cache_features", teacher, few,
            training={**TRAINING, "cache_features": True, "freeze_epochs": 1, "augment": "none"})  # fmt: skip
    refused(DataError, "no image, folder or glob", teacher, few, options=de.DistillOptions(unlabelled=("nowhere",)))
    with pytest.raises(UsageError, match="label_share 1"):
        de.DistillOptions(label_share=1.0)
    with pytest.raises(UsageError, match="no weighting is named 'both'"):
        de.DistillOptions(weighting="both")  # type: ignore[arg-type]


def test_classes_are_those_of_the_teacher(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for number in range(count):
            for kind, shape, top in (("images", (48, 64, 3), 255), ("targets", (48, 64), 2)):
                file = tmp_path / "data" / split / kind / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(random.integers(0, top, shape, np.uint8)).save(file)
    (tmp_path / "data" / "classes.txt").write_text("sky\nroad\n")
    task = SegmentationTask(("road", "sky"), ignore_index=9, loss_name="cross_entropy+dice")
    ensemble = de.Ensemble([network(0, 2)], task=task)
    folder, config = resolve_student(ensemble, tmp_path / "data", STUDENT, {})
    assert folder.task.describe()["classes"] == ["road", "sky"] and folder.task.describe()["ignore_index"] == 9
    assert config.loss == "cross_entropy+dice" and config.out_size == (12, 16) and config.input_size == (48, 64)
    other = de.Ensemble([network(0, 2)], task=SegmentationTask(("road", "sea")))
    with pytest.raises(DataError, match="sea"):
        resolve_student(other, tmp_path / "data", STUDENT, {})
