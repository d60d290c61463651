"""Report of a run: text, charts, and independence from other files."""

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from report.page_tags import Tags

from densemble.ensemble.prediction import Prediction
from densemble.errors import ResourceError
from densemble.inference.drawing import Legend
from densemble.report.run_page import SECTIONS, write_report
from densemble.report.strips import ImageStrip, Panel, draw_panels
from densemble.tasks import make_task

EVIL = "<b>evil</b>&\"'"
FIRST = {"task": "segmentation", "metric": "miou", "higher_is_better": True, "pictures": 101, "run": "runs/x",
         "made": "2026-11-24"}  # fmt: skip


def bins(shift: float) -> list[dict[str, Any]]:
    """Five bins, the first one empty."""
    empty = {"low": 0.0, "high": 0.2, "count": 0, "confidence": None, "accuracy": None}
    return [empty] + [
        {"low": i / 5, "high": (i + 1) / 5, "count": 10**i + 7, "confidence": at, "accuracy": at - shift}
        for i, at in enumerate((0.35, 0.55, 0.75, 0.95), start=1)
    ]


def gain(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": low, "high": high}


def full() -> dict[str, Any]:
    """Analysis with all sections."""
    return {
        **FIRST,
        "chosen": {"select": "greedy", "combine": "mean", "weights": {"lite0": 0.75, "lite1": 0.25, "vgg": 0.0},
                   "val": {"miou": 0.7241, "ece": 0.0113, "iou_per_class": [0.5]}, "milliseconds": 41.4},
        "strategies": [
            {"name": "best", "score": 0.7012, "low": 0.6812, "high": 0.7212, "members": 1, "milliseconds": 12.4,
             "gain_over_best": gain(0.0, 0.0, 0.0), "gain_over_all": gain(-0.0062, -0.0101, 0.0023)},
            {"name": "greedy", "score": 0.7134, "low": 0.6931, "high": 0.7337, "members": 2, "milliseconds": 41.4,
             "gain_over_best": gain(0.0122, 0.0021, 0.0183), "gain_over_all": gain(0.0064, 0.0011, 0.0104)},
            {"name": "all", "score": 0.7071, "low": 0.6881, "high": 0.7261, "members": 3, "milliseconds": 99.4,
             "gain_over_best": gain(0.0059, -0.0013, 0.0143), "gain_over_all": gain(0.0, 0.0, 0.0)},
        ],
        "cross_fitted": {
            "folds": "5 folds of contiguous blocks of images", "score": gain(0.7134, 0.6931, 0.7337),
            "scores": {"miou": 0.7134},
            "gain": {"total": gain(0.0234, 0.0123, 0.0345), "selection": gain(0.0101, 0.0045, 0.0167),
                     "calibration": gain(0.0133, 0.0078, 0.0198)},
        },
        "rules": [{"name": "mean", "score": 0.7134, "low": 0.693, "high": 0.734, "nll": 0.3121, "ece": 0.0214},
                  {"name": "vote", "score": 0.6872, "low": 0.671, "high": 0.702, "nll": None, "ece": None}],
        "members": [{"name": "lite0", "score": 0.7012, "milliseconds": 12.4, "parameters": 4_100_000, "share": 0.75,
                     "leave_one_out": 0.0043, "state": "done"},
                    {"name": "vgg", "score": 0.5712, "milliseconds": 80.6, "parameters": 138_000_000, "share": 0.0,
                     "leave_one_out": None, "state": "done"}],
        "baselines": [{"name": "mean map", "score": 0.1671}],
        "error_correlation": {"names": ["lite0", "lite1", "vgg"],
                              "matrix": [[1, 0.62, 0.31], [0.62, 1, -0.07], [0.31, -0.07, 1]]},
        "per_class": {"classes": ["sky", "road", "sign"],
                      "scores": {"lite0": [0.911, 0.702, None], "ensemble": [0.907, 0.713, None]},
                      "precision": [0.952, 0.833, None], "recall": [0.951, 0.831, None], "share": [0.6, 0.4, 0.0]},
        "confusion": [[571, 29, 0], [68, 332, 0], [0, 0, 0]],
        "calibration": {
            "before": {"ece": 0.0561, "classwise_ece": 0.0182, "brier": 0.214, "nll": 0.412, "table": bins(0.1)},
            "after": {"ece": 0.0124, "classwise_ece": 0.0093, "brier": 0.203, "nll": 0.377, "table": bins(0.02)},
            "temperatures": {"lite0": 1.134}, "ensemble": {"kind": "temperature", "temperature": 0.8123},
        },
        "risk_coverage": {"by": "entropy", "aurc": 0.0253, "error_auroc": 0.8734, "random": 0.134,
                          "curve": [[0.1, 0.002], [0.5, 0.021], [0.8, 0.049], [0.9, 0.081], [1.0, 0.134]]},
        "guarantee": {
            "kind": "conformal_set", "threshold": 0.19, "miscoverage": 0.1, "pictures": 50, "promised": 0.9,
            "coverage": 0.912, "low": 0.853, "high": 0.951, "checked_on": 25, "mean_size": 1.31,
        },
        "pareto": [{"members": ["lite0"], "milliseconds": 12.4, "score": 0.701},
                   {"members": ["lite0", "lite1"], "milliseconds": 41.4, "score": 0.713}],
        "disagreement": [{"picture": "0001TP", "score": 0.512, "disagreement": 0.0931}],
        "dropped": [{"name": "alexnet", "reason": "val_predictions.npy: damaged; run `densemble train --resume`"}],
        "curves": {"lite0": [{"epoch": 1, "train_loss": 1.04, "val_loss": 1.1, "val_miou": 0.2},
                             {"epoch": 2, "train_loss": 0.67, "val_loss": 0.84, "val_miou": 0.26}]},
    }  # fmt: skip


SHOWN = """
+0.0234 +0.0123 +0.0345 +0.0101 +0.0045 +0.0167 +0.0133 +0.0078 +0.0198
0.713 0.693 0.734 0.701 0.681 0.721 0.707 0.688 0.726 +0.0122 +0.0021 +0.0183 +0.0064 +0.0011 +0.0104 +0.0059 -0.0013
+0.0143 -0.0062 -0.0101 +0.0023 12.4 41.4 99.4 0.724 0.0113 0.312 0.0214 0.687 0.671 0.702 0.571 80.6 4.1 138.0 75% 25%
+0.0043 0.167 0.62 0.31 -0.07 0.911 0.907 0.713 0.0561 0.0124 0.0182 0.0093 0.214 0.203 0.412 0.377 1.13 0.812 0.0253
0.873 0.134 0.081 0.049 0.021 0.912 0.853 0.951 1.31 0.512 0.0931 0.350 0.550 0.750 0.950 0.250 0.850 0.930 10,007
0.952 0.833 0.951 0.831 95 5 17 83 29 68
"""


def page_of(analysis: dict[str, Any], folder: Path, strips: list[ImageStrip] | None = None) -> tuple[str, Tags]:
    json.dumps(analysis, allow_nan=False)
    path = folder / "report.html"
    assert write_report(path, analysis, strips or []) == path
    text = path.read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    return text, tags


def words(text: str) -> str:
    """Visible text of a page."""
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text.split("</style>")[1])))


def section(text: str, key: str) -> str:
    match = re.search(rf'<section id="{key}">(.*?)</section>', text, re.DOTALL)
    assert match is not None
    return match[1]


def strip(name: str = "0001TP", size: tuple[int, int] = (48, 64)) -> ImageStrip:
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    panels = tuple(Panel(title, noise) for title in ("image", "target"))
    return ImageStrip(name, 0.512, "worst", panels, (Panel("lite0", noise),))


def test_page_is_self_contained(tmp_path: Path) -> None:
    text, tags = page_of(full(), tmp_path, [strip()])
    assert not {"script", "link", "iframe", "object", "embed"} & set(tags.seen)
    assert all(address.startswith(("#", "data:image/jpeg;base64,")) for address in tags.addresses)
    assert not re.search(r"https?://|url\(|@import", text)
    anchors = [address[1:] for address in tags.addresses if address.startswith("#")]
    sections = re.findall(r'<section id="(\w+)"', text)
    assert anchors == sections == ["images", "answer", *SECTIONS]
    assert tags.alts == ["image of 0001TP", "target of 0001TP", "lite0 of 0001TP"]


def test_every_number_is_on_the_page(tmp_path: Path) -> None:
    seen = words(page_of(full(), tmp_path)[0])
    assert [
        number for number in SHOWN.split() if not re.search(rf"(?<![\d.]){re.escape(number)}(?![\d.]*\d)", seen)
    ] == []


def test_numbers_have_at_most_four_significant_digits(tmp_path: Path) -> None:
    analysis = full()
    for row in analysis["strategies"]:
        row["score"] += 1 / 7e5
    seen = words(page_of(analysis, tmp_path)[0])
    assert [n for n in re.findall(r"\d*\.\d+", seen) if len(n.replace(".", "").lstrip("0")) > 4] == []


@pytest.mark.parametrize("key", [*SECTIONS, "chosen", "baselines", "dropped"])
def test_sections_without_data_are_left_out(key: str, tmp_path: Path) -> None:
    analysis = full()
    del analysis[key]
    text, _ = page_of(analysis, tmp_path)
    left_out = {key, "confusion"} if key == "per_class" else {key}
    assert re.findall(r'<section id="(\w+)"', text) == ["answer", *(name for name in SECTIONS if name not in left_out)]
    assert ('class="overview"' in text) is (key != "chosen")
    assert ("mean map" in text) is (key not in ("baselines", "members"))
    assert ("alexnet" in text) is (key != "dropped")


def test_page_of_an_analysis_without_sections(tmp_path: Path) -> None:
    text, _ = page_of(FIRST, tmp_path)
    assert "<section" not in text and "101 validation images" in words(text)


def renamed(value: Any, name: str) -> Any:
    """Copy with ``lite0`` replaced by another name."""
    return json.loads(json.dumps(value).replace('"lite0"', json.dumps(name)))


def test_names_are_escaped(tmp_path: Path) -> None:
    analysis = renamed(full(), EVIL)
    analysis["per_class"]["classes"][0] = analysis["disagreement"][0]["picture"] = analysis["run"] = EVIL
    analysis["dropped"][0] = {"name": EVIL, "reason": EVIL}
    analysis["strategies"][0]["name"] = analysis["rules"][1]["name"] = analysis["baselines"][0]["name"] = EVIL
    analysis["calibration"]["ensemble"]["kind"] = analysis["risk_coverage"]["by"] = EVIL
    evil = strip(EVIL)
    panels = tuple(Panel(EVIL, panel.pixels, Legend(((EVIL, (1, 2, 3)),), note=EVIL)) for panel in evil.panels)
    evil = ImageStrip(EVIL, None, EVIL, panels, panels)
    text, _ = page_of(analysis, tmp_path, [evil])
    assert "<b>evil" not in text and "</b>&" not in text
    assert words(text).count(EVIL) > 20


@pytest.mark.parametrize(
    ("over_best", "warning"),
    [
        (gain(0.012, 0.002, 0.018), None),
        (gain(0.012, -0.001, 0.018), "Not significantly better than the best member, lite1"),
        (gain(0.012, 0.0, 0.018), "Not significantly better than the best member, lite1"),
        (gain(-0.012, -0.02, -0.003), "Worse than the best member, lite1"),
        (gain(0.0, 0.0, 0.0), "The same as the best member, lite1"),
    ],
)
def test_warning_about_uncertain_gains(over_best: dict[str, float], warning: str | None, tmp_path: Path) -> None:
    analysis = full()
    analysis["cross_fitted"]["gain"]["total"] = over_best
    analysis["cross_fitted"]["best_member"] = "lite1"
    titles = re.findall(r'class="problem warning"><h3>(.*?)</h3>', page_of(analysis, tmp_path)[0])
    assert titles == [*([warning] if warning else []), "Members that were left out"]


def test_strategy_is_not_compared_with_itself(tmp_path: Path) -> None:
    analysis = full()
    analysis["chosen"]["select"] = "all"
    text = words(page_of(analysis, tmp_path)[0])
    assert "over the best single member" in text
    assert "over the mean of all members" not in text and "The same as the mean of all members" not in text


@pytest.mark.parametrize("higher", [True, False])
def test_warning_about_baselines(higher: bool, tmp_path: Path) -> None:
    """The baseline scores between the ensemble (0.7134) and vgg (0.5712): one of the two is worse than it."""
    analysis = {**full(), "higher_is_better": higher, "baselines": [{"name": "mean map", "score": 0.6}]}
    seen = words(page_of(analysis, tmp_path)[0])
    assert ("The ensemble is no better than a baseline" in seen) is not higher
    assert f"Members that are not better: {'vgg' if higher else 'lite0'}." in seen


def test_rows_are_sorted_by_score(tmp_path: Path) -> None:
    for higher, order in ((True, ["greedy", "all", "best"]), (False, ["best", "all", "greedy"])):
        text = section(page_of({**full(), "higher_is_better": higher}, tmp_path)[0], "strategies")
        assert re.findall(r'<tr><td><div class="name">(?:<b>)?(\w+)', text) == order


def test_best_score_of_each_class_is_bold(tmp_path: Path) -> None:
    text = section(page_of(full(), tmp_path)[0], "per_class")
    assert re.findall(r"<td[^>]*><b>([\d.]+)</b>", text) == ["0.911", "0.713"]
    assert "No member is better than the ensemble in 1 of 2 classes." in text
    lower = section(page_of({**full(), "higher_is_better": False}, tmp_path)[0], "per_class")
    assert re.findall(r"<td[^>]*><b>([\d.]+)</b>", lower) == ["0.907", "0.702"]


def scale(svg: str, anchor: str, axis: str) -> np.ndarray[Any, Any]:
    """Slope and intercept of the map from pixels to values, from the ticks of an axis."""
    marks = re.findall(rf'<text x="([\d.]+)" y="([\d.]+)" text-anchor="{anchor}">([\d.]+)</text>', svg)
    pixels = [float(mark[0 if axis == "x" else 1]) for mark in marks]
    return np.polyfit(pixels, [float(mark[2]) for mark in marks], 1)


def drawn_points(svg: str) -> np.ndarray[Any, Any]:
    """Values of the dots of a chart, read from its axes."""
    dots = np.array([[float(x), float(y)] for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', svg)])
    x = np.polyval(scale(svg, "middle", "x"), dots[:, 0])
    y = np.polyval(scale(svg, "end", "y"), dots[:, 1] + 4)  # labels are 4 pixels below their lines
    return np.stack([x, y], 1)


def test_reliability_diagram_agrees_with_the_table(tmp_path: Path) -> None:
    analysis = full()
    figures = re.findall(r"<svg.*?</svg>", section(page_of(analysis, tmp_path)[0], "calibration"), re.DOTALL)
    for name, svg, bars in zip(("before", "after"), figures[::2], figures[1::2], strict=True):
        rows = analysis["calibration"][name]["table"]
        known = [(row["confidence"], row["accuracy"]) for row in rows if row["count"]]
        np.testing.assert_allclose(drawn_points(svg), known, atol=2e-3)
        assert re.findall(r"<title>([\d,]+)</title>", bars) == [f"{row['count']:,}" for row in rows]
        heights = [float(height) for height in re.findall(r'<rect[^>]* height="([\d.]+)"', bars)]
        expected = np.log10([row["count"] + 1 for row in rows])
        np.testing.assert_allclose(np.array(heights) / heights[-1], expected / expected[-1], atol=2e-3)


def test_interval_coverage_is_drawn(tmp_path: Path) -> None:
    rows = [{"nominal": 0.5, "before": 0.31, "after": 0.49}, {"nominal": 0.9, "before": 0.62, "after": 0.89}]
    fitted = {"kind": "variance", "scale": 1.734, "floor": 0.02}
    text = section(
        page_of({**full(), "calibration": {"coverage": rows, "ensemble": fitted}}, tmp_path)[0], "calibration"
    )
    expected = [(row["nominal"], row[key]) for key in ("before", "after") for row in rows]
    np.testing.assert_allclose(drawn_points(text), expected, atol=2e-3)
    assert "variance, scale 1.73, floor 0.0200." in text


def test_guarantee_below_the_requested_coverage_is_marked(tmp_path: Path) -> None:
    broken = {**full()["guarantee"], "coverage": 0.75, "low": 0.68, "high": 0.82}
    assert "less than requested" in page_of({**full(), "guarantee": broken}, tmp_path)[0]
    assert "less than requested" not in page_of(full(), tmp_path)[0]


def test_largest_page_is_smaller_than_6_mb(tmp_path: Path) -> None:
    """Nine rows of 5 + 8 panels of noise, the worst case for JPEG; the page of a real run has about 1 MB."""
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3)).astype(np.uint8)
    strips = [
        ImageStrip(str(i), None, "", (Panel("noise", noise),) * 5, (Panel("noise", noise),) * 8) for i in range(9)
    ]
    text, tags = page_of(full(), tmp_path, strips)
    assert tags.seen.count("img") == 117 and len(text) < 6e6


def test_unwritable_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError):
        write_report(tmp_path / "file" / "report.html", full(), [])


def prediction_of(mean: torch.Tensor, variance: torch.Tensor, entropy: torch.Tensor | None) -> Prediction:
    return Prediction(
        mean=mean, variance=variance, entropy=entropy, expected_entropy=None, mutual_information=None,
        disagreement=None, label=None,
    )  # fmt: skip


TASKS: dict[str, tuple[dict[str, Any], torch.Tensor]] = {
    "labels": ({"name": "segmentation", "classes": ["a", "b", "c"]}, torch.arange(48 * 64).reshape(48, 64) % 3),
    "masks": ({"name": "multilabel", "classes": ["a", "b"]}, (torch.rand(2, 48, 64) > 0.5).long()),
    "heat": ({"name": "saliency"}, torch.rand(48, 64)),
    "keypoints": ({"name": "heatmap", "classes": ["a", "b"]}, torch.rand(2, 48, 64)),
    "density": ({"name": "heatmap", "classes": ["a"], "mode": "density"}, torch.rand(1, 48, 64)),
    "values": ({"name": "depth"}, torch.rand(48, 64) + 1),
    "pixels": ({"name": "image"}, torch.rand(3, 48, 64)),
}


@pytest.mark.parametrize("kind", TASKS)
def test_perfect_member_looks_like_the_target(kind: str) -> None:
    values, target = TASKS[kind]
    task = make_task(values)
    perfect, _ = task.as_maps(target)
    wrong = perfect.flip(-1, 0)
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)
    entropy = None if task.distribution == "none" else torch.rand(1, 48, 64)
    prediction = prediction_of(perfect[None], torch.rand(1, *perfect.shape), entropy)
    panels, members = draw_panels(image, target, prediction, {"good": perfect, "bad": wrong}, task)
    assert [panel.title for panel in panels] == ["image", "target", "ensemble", "error", "uncertainty"]
    assert [panel.title for panel in members] == ["good", "bad"]
    drawn = {panel.title: panel.pixels for panel in (*panels, *members)}
    assert all(pixels.shape == (48, 64, 3) and pixels.dtype == np.uint8 for pixels in drawn.values())
    with_bar = {panel.title for panel in (*panels, *members) if panel.legend.bar is not None}
    others = {"target", "ensemble", "good", "bad"} if task.target_kind in ("heat", "density", "values") else set()
    assert with_bar == others | {"uncertainty"}  # the perfect ensemble has no error to draw
    np.testing.assert_array_equal(drawn["image"], image)
    np.testing.assert_array_equal(drawn["target"], drawn["ensemble"])
    np.testing.assert_array_equal(drawn["target"], drawn["good"])
    assert (drawn["bad"] != drawn["good"]).mean() > 0.2


def test_panels_are_small_for_all_input_sizes() -> None:
    task = make_task({"name": "segmentation", "classes": ["a", "b"]})
    target = torch.zeros(300, 400, dtype=torch.long)
    target[:150] = 255
    maps = torch.softmax(torch.rand(2, 30, 40), 0)
    entropy = torch.full((1, 30, 40), float(np.log(2)))
    entropy[:, :, :20] = 0
    image = np.full((600, 800, 3), 200, np.uint8)
    rows = draw_panels(image, target, prediction_of(maps[None], maps[None], entropy), {"m": maps}, task)
    panels = {panel.title: panel.pixels for row in rows for panel in row}
    assert {pixels.shape for pixels in panels.values()} == {(240, 320, 3)}
    assert not panels["target"][:120].any() and panels["target"][121:].any()
    brightest = panels["uncertainty"]
    assert brightest[:, :150].mean() < 5 and brightest[:, 170:].mean() > 190


def test_all_panels_of_values_share_one_scale() -> None:
    """A depth that is wrong by a factor of two looks wrong."""
    task = make_task({"name": "depth"})
    target = torch.linspace(1, 3, 64).repeat(48, 1)
    flat = torch.zeros(1, 1, 48, 64)
    prediction = prediction_of(target[None, None], flat, None)
    image = np.zeros((48, 64, 3), np.uint8)
    rows = draw_panels(image, target, prediction, {"half": target[None] / 2}, task)
    drawn = {panel.title: panel.pixels for row in rows for panel in row}
    same = np.argmin(abs(target[0].numpy() - 1.5))  # half of the last column's 3
    np.testing.assert_allclose(drawn["half"][0, 63].astype(int), drawn["target"][0, same].astype(int), atol=2)
