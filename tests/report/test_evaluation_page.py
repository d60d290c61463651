"""evaluate with a report: one pass over the images, values that agree with the scores, and the page."""

import json
import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from report.page_tags import Tags
from sklearn.metrics import confusion_matrix
from small_networks import small_dense

import densemble as de
from densemble.ensemble.calibrate import Temperature
from densemble.errors import ResourceError, UsageError
from densemble.evaluation import scores
from densemble.evaluation.scores import images_with_targets
from densemble.report.evaluation_page import EvaluationReport
from densemble.tasks import make_task

CLASSES = ["sky", "road", "car"]
CLASSIFIED = ("segmentation", "multilabel")
IMAGES = 6


def make_data(folder: Path, task: str) -> de.FolderData:
    random = torch.Generator().manual_seed(0)
    pairs = []
    for _ in range(IMAGES):
        image = torch.rand(3, 48, 64, generator=random)
        label = (image[0] * 3).long().clamp(max=2)
        target = {
            "segmentation": label.byte(), "depth": image[0] + 1, "saliency": image[0], "image": image,
            "multilabel": (image > 0.5).byte(),
        }[task]  # fmt: skip
        pairs.append((image, target))
    options = {"classes": CLASSES} if task in CLASSIFIED else {}
    return de.store_dataset({"train": pairs[:1], "test": pairs}, folder, task, **options)


@cache
def network(seed: int, channels: int) -> de.DenseModel:
    return small_dense(seed, out_channels=channels)


def make_ensemble(task: str, members: int = 2, **options: Any) -> de.Ensemble:
    values = {"name": task, **({"classes": CLASSES} if task in CLASSIFIED else {})}
    channels = 1 if task in ("depth", "saliency") else 3
    networks = {f"m{seed}": deepcopy(network(seed, channels)) for seed in range(members)}
    return de.Ensemble(networks, [2.0, 1.0][:members], make_task(values), **options).eval()


@pytest.fixture(scope="module")
def segmented(tmp_path_factory: pytest.TempPathFactory) -> de.FolderData:
    return make_data(tmp_path_factory.mktemp("segmentation") / "streets", "segmentation")


def calibrated() -> de.Ensemble:
    return make_ensemble("segmentation", calibration=Temperature(0.5, "categorical"))


def page_of(path: Path) -> tuple[str, Tags]:
    text, tags = path.read_text(), Tags()
    tags.feed(text)
    assert tags.open == []
    return text, tags


def test_page_of_a_segmentation(segmented: de.FolderData, tmp_path: Path) -> None:
    ensemble, out = calibrated(), tmp_path / "report.html"
    runs: list[str] = []
    for name, member in ensemble.named_members():
        member.register_forward_hook(lambda *_, name=name: runs.append(name))
    values = de.evaluate(ensemble, segmented, report=out)
    assert sorted(runs) == ["m0"] * IMAGES + ["m1"] * IMAGES  # once per image
    assert values == de.evaluate(calibrated(), segmented)
    text, tags = page_of(out)
    assert not {"script", "link", "iframe", "object", "embed"} & set(tags.seen)
    assert all(address.startswith(("#", "data:image/jpeg;base64,")) for address in tags.addresses)
    assert not re.search(r"https?://|url\(|@import", text)
    assert all(tags.alts) and {"target of 000000", "error of 000000", "uncertainty of 000000"} <= set(tags.alts)
    assert re.findall(r'<section id="(\w+)"', text) == [
        "images", "answer", "members", "per_class", "confusion", "calibration", "risk_coverage", "disagreement",
    ]  # fmt: skip
    assert "Ensemble of 2 members on streets" in text and "6 images of the split &#x27;test&#x27;" in text


def test_values_agree_with_the_scores_and_scikit_learn(segmented: de.FolderData) -> None:
    ensemble = calibrated()
    report = EvaluationReport(ensemble)
    values = scores.evaluate(ensemble, segmented, "test", watch=report)
    analysis = report.analysis(values, "streets", "title")
    json.dumps(analysis, allow_nan=False)
    plain = de.evaluate(make_ensemble("segmentation"), segmented)
    best = max(member["miou"] for member in values["members"].values())
    gains = {name: interval["value"] for name, interval in analysis["evaluated"]["gain"].items()}
    assert analysis["evaluated"]["score"]["value"] == pytest.approx(values["miou"])
    assert gains["total"] == pytest.approx(values["miou"] - best)
    assert gains["selection"] == pytest.approx(plain["miou"] - best)
    assert gains["calibration"] == pytest.approx(values["miou"] - plain["miou"])
    assert analysis["calibration"]["before"]["nll"] == pytest.approx(plain["nll"])
    assert analysis["calibration"]["after"]["nll"] == pytest.approx(values["nll"])
    truth, predicted = [], []
    for image, target, _ in images_with_targets(segmented, "test"):
        mean = ensemble.predict(image).mean
        grown = torch.nn.functional.interpolate(mean, size=target.shape, mode="bilinear", align_corners=False)
        predicted.append(grown[0].argmax(0).numpy().ravel())
        truth.append(target.numpy().ravel())
    expected = confusion_matrix(np.concatenate(truth), np.concatenate(predicted), labels=range(3))
    np.testing.assert_array_equal(analysis["confusion"], expected)
    iou = np.diag(expected) / (expected.sum(0) + expected.sum(1) - np.diag(expected))
    np.testing.assert_allclose(analysis["per_class"]["scores"]["ensemble"], iou)
    recall = analysis["per_class"]["recall"]
    np.testing.assert_allclose(recall, np.diag(expected) / expected.sum(1))
    by_score = sorted(analysis["disagreement"], key=lambda row: -row["score"])
    strips = {strip.caption.split(",")[0]: strip.name for strip in report.strips()}
    assert (strips["best"], strips["worst"]) == (by_score[0]["picture"], by_score[-1]["picture"])


@pytest.mark.parametrize("task", ["depth", "saliency", "image", "multilabel"])
def test_other_tasks_and_one_member(task: str, tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", task)
    de.evaluate(make_ensemble(task, members=1), data, report=tmp_path / "r.html")
    text, tags = page_of(tmp_path / "r.html")
    sections = re.findall(r'<section id="(\w+)"', text)
    assert sections[:3] == ["images", "answer", "members"] and "confusion" not in sections
    assert ('<th scope="col" class="drawn">precision</th>' in text) is (task == "multilabel")
    assert "most disputed" not in text.lower() and all(tags.alts)


def test_member_without_a_usable_map_is_reported(segmented: de.FolderData, tmp_path: Path) -> None:
    """The member gives NaN for the first image only; the others are scored with both members."""
    ensemble = make_ensemble("segmentation")
    ensemble.min_members = 1
    results: list[torch.Tensor] = []

    def spoil(module: Any, inputs: Any, logits: torch.Tensor) -> torch.Tensor:
        results.append(logits)
        return logits if len(results) > 1 else logits * float("nan")

    ensemble.members["m1"].register_forward_hook(spoil)
    with pytest.warns(UserWarning, match="m1"):
        values = de.evaluate(ensemble, segmented, report=tmp_path / "r.html")
    assert [row["members"].keys() for row in values["without"]] == [{"m1"}]
    text = (tmp_path / "r.html").read_text()
    assert "Members that were left out" in text and "(of 1 images)" in text


def test_command(densemble: Callable[..., Any], segmented: de.FolderData, tmp_path: Path) -> None:
    ensemble = calibrated()
    spec = {name: replace(member.spec, backbone="small_networks:SmallClassifier") for name, member in
            ensemble.named_members()}  # fmt: skip
    for name, member in ensemble.named_members():
        member.spec = spec[name]
    de.save(ensemble, tmp_path / "gaze.safetensors")
    out = tmp_path / "report.html"
    allowed = ("--function", "small_networks:SmallClassifier")
    done = densemble("evaluate", tmp_path / "gaze.safetensors", segmented.path, *allowed, "--report", out, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["report"] == str(out)
    assert "gaze.safetensors on streets" in out.read_text()
    done = densemble("evaluate", tmp_path / "gaze.safetensors", segmented.path, *allowed, "--report", tmp_path)
    assert done.returncode == 2 and "is a folder; name the file of the report" in done.stderr


def test_a_path_that_cannot_be_written_stops_before_the_first_image(segmented: de.FolderData, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ensemble = calibrated()
    ensemble.register_forward_hook(lambda *_: pytest.fail("the ensemble ran"))
    with pytest.raises(ResourceError):
        de.evaluate(ensemble, segmented, report=tmp_path / "file" / "report.html")
    with pytest.raises(UsageError, match="is a folder"):
        de.evaluate(ensemble, segmented, report=tmp_path)
