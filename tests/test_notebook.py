"""HTML of public objects for notebooks: what it says, that it is safe, and its images."""

import base64
import io
import re
import shutil
from dataclasses import fields
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_networks import small_dense

import densemble as de
from densemble.ensemble.calibrate import Temperature
from densemble.ensemble.guarantee.sets import ConformalSet
from densemble.errors import UsageError
from densemble.inference.predict import PredictKeywords
from densemble.nets.cut import CutList
from densemble.notebook import grey, images, table

WRITTEN = Path(__file__).parent / "written_before"
HOSTILE = "<script>alert('x')</script>&\""


class Page(HTMLParser):
    """Reads HTML: text, tags, links, and whether every tag is closed."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: list[str] = []
        self.rows: list[list[str]] = []
        self.open: list[str] = []
        self.links: dict[str, str] = {}
        self.images: list[Any] = []
        self.feed(markup)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        assert not any(name.startswith("on") for name in values)
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "img":
            source = str(values["src"])
            assert source.startswith("data:image/") and values["alt"]
            self.images.append(np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1])))))
        else:
            self.open.append(tag)
        if tag == "a":
            self.links[str(values["href"])] = ""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(self.texts)


def page(shown: Any) -> Page:
    found = Page(shown._repr_html_())
    assert "script" not in found.tags and "link" not in found.tags
    return found


def row(found: Page, name: str) -> list[str]:
    """The first row of a table with this name."""
    return next(cells for cells in found.rows if cells[0] == name)


# --- parts ------------------------------------------------------------------------------------------------------------


def test_table_escapes_and_aligns_numbers() -> None:
    markup = table(["name", HOSTILE], [[HOSTILE, 0.123456], ["b", None], ["c", "-3 M"]])
    found = Page(markup)
    assert found.texts == ["name", HOSTILE, HOSTILE, "0.1235", "b", "c", "-3 M"] and "script" not in found.tags
    assert len(re.findall("text-align:right", markup)) == len(re.findall("text-align:left", markup)) == 4


def test_grey_spans_the_values_and_nan_is_black() -> None:
    values = np.array([[2.0, 3.0], [np.nan, 4.0]])
    np.testing.assert_array_equal(grey(values), [[0, 128], [0, 255]])
    np.testing.assert_array_equal(grey(values, 0, 8), [[64, 96], [0, 128]])
    assert (grey(np.full((2, 2), 5.0)) == 0).all() and (grey(np.full((2, 2), np.nan)) == 0).all()


def test_images_are_embedded_and_small() -> None:
    small, large = np.arange(6, dtype=np.uint8).reshape(2, 3), np.full((300, 900, 3), (200, 30, 30), np.uint8)
    found = Page(images([(HOSTILE, small), ("b", large)], width=100))
    np.testing.assert_array_equal(found.images[0], small)
    assert found.images[1].shape == (67, 200, 3) and abs(found.images[1].astype(int) - large[0, 0]).max() < 8
    assert found.texts == [HOSTILE, "b"] and images([]) == ""


# --- objects ----------------------------------------------------------------------------------------------------------


def test_cut_and_list_of_cuts() -> None:
    cut = small_dense().cut
    found = page(cut)
    assert f"Cut at {cut.node}" in found.texts and str(cut.channels) in found.texts
    assert f"why: {cut.why}" in found.texts and f"{cut.height}x{cut.width}" in found.texts
    assert row(page(CutList([cut])), cut.node)[1] == str(cut.channels)


@pytest.fixture(scope="module")
def ensemble() -> de.Ensemble:
    members = {"one": small_dense(out_channels=2), HOSTILE: small_dense(1, out_channels=2)}
    task = de.TASKS["segmentation"](classes=("sky", HOSTILE))  # type: ignore[call-arg]
    scores = {"val": {"miou": 0.51, "per_class": [1, 2]}, "members": {"one": {"miou": 0.25}}}
    return de.Ensemble(
        members, weights=[3, 1], task=task, temperatures=[1.5, 1], metrics=scores,
        calibration=Temperature(1.25, "categorical"), guarantee=ConformalSet(0.2, 0.1, 40),
    ).eval()  # fmt: skip


def test_ensemble_shows_members_scores_calibration_and_guarantee(ensemble: de.Ensemble) -> None:
    found = page(ensemble)
    spec = next(ensemble.named_members())[1].spec
    assert "Ensemble of 2 members: segmentation" in found.texts
    assert row(found, "one")[:-1] == ["one", "0.750", "1.50", spec.backbone, spec.node, "upsample"]
    assert row(found, HOSTILE)[1] == "0.250" and f"classes: sky, {HOSTILE}" in found.texts
    assert found.rows[-3:] == [["score on val", "miou"], ["ensemble", "0.5100"], ["one", "0.2500"]]
    assert "combination rule: mean" in found.texts and "calibration: temperature, value 1.25" in found.texts
    assert "guarantee: conformal set, threshold 0.2, miscoverage 0.1, images 40" in found.texts


def test_predictions_show_maps(ensemble: de.Ensemble) -> None:
    batch = torch.rand(2, 3, 48, 64)
    found = page(ensemble.predict(batch))
    label = ensemble.predict(batch).label
    assert label is not None and len(found.images) == 6  # label, entropy and variance of both images
    np.testing.assert_array_equal(found.images[0], grey(label[0].numpy()))
    assert row(found, "mean")[1] == "2 x 2 x 12 x 16"
    (one,) = de.predict(ensemble, np.zeros((48, 64, 3), np.uint8), "eager")
    found = page(one)
    assert [drawn.shape for drawn in found.images] == [(48, 64, 3)] * 3 and "size: 48x64" in found.texts
    assert f"mean entropy: {one.unsureness('entropy'):.4g}" in found.texts  # type: ignore[union-attr]


def test_folder_shows_images_and_targets(tmp_path: Path) -> None:
    image, target = torch.full((3, 16, 24), 0.25), torch.zeros(16, 24, dtype=torch.uint8)
    target[:, 12:] = 1
    data = de.store_dataset({"train": [(image, target)], "val": [(image, target)]}, tmp_path, "segmentation",
                            classes=["sky", HOSTILE])  # fmt: skip
    found = page(data)
    assert "images: 1 train, 1 val" in found.texts and f"classes: sky, {HOSTILE}" in found.texts
    shown, labels = found.images
    assert shown.shape == (16, 24, 3) and abs(shown.astype(int) - 64).max() < 4
    assert (labels[:, :12] == 128).all() and (labels[:, 12:] == 255).all()
    (tmp_path / "train" / "targets" / "000000.png").write_bytes(b"no image")
    assert "cannot read 000000" in page(data).text


def test_run_shows_the_leaderboard_and_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(WRITTEN / "run", tmp_path / "run")
    (tmp_path / "run" / "report.html").write_text("")
    run = de.Run(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    found = page(run)
    table = run.leaderboard()
    for name, best in table[run.task.primary].items():
        assert row(found, str(name))[1] == f"{best:.4f}"
    assert list(found.links) == ["run/report.html"]
    monkeypatch.chdir(tmp_path / "run" / "members")
    assert list(page(run).links) == [(tmp_path / "run" / "report.html").as_uri()]
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(tmp_path / "run" / "members")
    assert "no member is trained yet" in page(run).texts


# --- predict ----------------------------------------------------------------------------------------------------------


def test_predict_takes_options_as_keywords(ensemble: de.Ensemble, tmp_path: Path) -> None:
    assert list(PredictKeywords.__annotations__) == [field.name for field in fields(de.PredictOptions)]
    pixels = np.zeros((2, 24, 32, 3), np.uint8)
    options = de.PredictOptions(batch=2, save=("map",))
    list(de.predict(ensemble, pixels, "eager", out=tmp_path / "a", options=options, save=("npy",)))
    assert sorted(file.suffix for file in (tmp_path / "a").glob("[0-9]*")) == [".npy", ".npy"]
    with pytest.raises(UsageError, match="predict has no option 'keeps'; did you mean 'keep'"):
        list(de.predict(ensemble, pixels, keeps=0.9))  # type: ignore[call-overload]
    with pytest.raises(UsageError, match="tile is for files"):
        list(de.predict(ensemble, pixels, tile=64))
    with pytest.raises(UsageError, match="cascade"):
        list(de.predict(ensemble, pixels, "eager", keep=0.9))
