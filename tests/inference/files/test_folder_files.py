"""Files for a whole folder: complete and equal after an interruption, a failure, or a change of the images."""

import csv
import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_networks import SMALL

import densemble as de
from densemble.errors import UsageError
from densemble.inference import file_kinds
from densemble.inference.file_kinds import SAVE
from densemble.inference.files.journal import JOURNAL
from densemble.inference.files.records import RECORDS
from densemble.inference.formats import FORMATS, FormatOptions
from densemble.inference.predict import PredictOptions
from densemble.inference.tiles import predict_large as large
from densemble.tasks import TASKS, DepthTask, HeatmapTask, MultilabelTask, SaliencyTask, SegmentationTask, Task

pytest.importorskip("pycocotools")
pytest.importorskip("rasterio")

EAGER = ("eager", "fp32")
KINDS = tuple(FORMATS)
FOLDER_FILES = {row.file for row in FORMATS.values() if not row.per_image}
TASK = SegmentationTask(("background", "road", "car"))


def build(task: Task) -> de.Ensemble:
    options: dict[str, Any] = {"out_size": (12, 16), "input_size": (48, 64), "head": "upsample", "weights": None}
    members = [de.DenseModel(SMALL, out_channels=task.out_channels, **options) for _ in range(2)]
    random = torch.rand(4, 3, 48, 64)
    for member in members:
        logits = member.head.logits
        torch.nn.init.normal_(logits.weight, std=20.0)
        with torch.no_grad():  # centred, so that maps hold regions of several classes
            logits.bias -= member.eval()(random).mean((0, 2, 3))
    return de.Ensemble(members, task=task)


@pytest.fixture
def ensemble() -> de.Ensemble:
    return build(TASK).eval()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Six images in two folders; two have the same name, and one is broken."""
    folder = tmp_path / "images"
    random = np.random.default_rng(0)
    for name in ("left/a.png", "left/b.png", "left/c.png", "right/a.png", "right/d.png"):
        (path := folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (24, 31, 3), dtype=np.uint8)).save(path)
    (folder / "left" / "broken.png").write_bytes(b"no image")
    return folder


def run(ensemble: de.Ensemble, images: Any, out: Path, **options: Any) -> list[Any]:
    given = PredictOptions(**{"save": KINDS, "batch": 1, **options})
    return list(de.predict(ensemble, images, *EAGER, out=out, options=given))


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.iterdir() if path.name not in (JOURNAL, RECORDS)}


def names(path: Path) -> list[str]:
    return [image["file_name"] for image in json.loads(path.read_text())["images"]]


def test_one_file_holds_all_images_that_were_predicted(ensemble: de.Ensemble, images: Path, tmp_path: Path) -> None:
    results = run(ensemble, f"{images}/*/*.png", tmp_path / "out")
    assert [p.name for p in results if p.failed] == ["broken"]
    listed = ["left/a.png", "left/b.png", "left/c.png", "right/a.png", "right/d.png"]
    assert names(tmp_path / "out" / "predictions.coco.json") == listed
    with (tmp_path / "out" / "areas.csv").open(newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == listed
    tasks = json.loads((tmp_path / "out" / "predictions.labelstudio.json").read_text())
    assert [task["data"]["image"].removeprefix("/data/local-files/?d=") for task in tasks] == listed
    assert {task["predictions"][0]["model_version"][:10] for task in tasks} == {"densemble "}
    geojson = {f"{name}.geojson" for name in ("left_a_png", "b", "c", "right_a_png", "d")}
    assert contents(tmp_path / "out").keys() == FOLDER_FILES | geojson
    assert {file.name for p in results if not p.failed for file in p.files} == geojson


def test_an_entry_is_that_of_the_single_image(ensemble: de.Ensemble, images: Path, tmp_path: Path) -> None:
    run(ensemble, images / "left" / "b.png", tmp_path / "out")
    (prediction,) = de.predict(ensemble, images / "left" / "b.png", *EAGER)
    options = FormatOptions(model_version=json.loads((tmp_path / "out" / "predictions.labelstudio.json").read_text())[0]
                            ["predictions"][0]["model_version"])  # fmt: skip
    for kind, path in zip(KINDS, prediction.save(tmp_path / "alone", KINDS, None, options), strict=True):
        row = FORMATS[kind]
        folder_file = tmp_path / "out" / ("b.geojson" if row.per_image else row.file)
        assert path.read_bytes() == folder_file.read_bytes()


@pytest.mark.parametrize("stop", [1, 3])
def test_an_interrupted_folder_ends_with_the_same_files(
    stop: int, ensemble: de.Ensemble, images: Path, tmp_path: Path
) -> None:
    source, out = f"{images}/*/*.png", tmp_path / "out"
    run(ensemble, source, tmp_path / "whole")
    results = de.predict(ensemble, source, *EAGER, out=out, options=PredictOptions(save=KINDS, batch=1))
    done = [p for p in islice(results, stop) if not p.failed]
    results.close()  # type: ignore[attr-defined]
    assert not FOLDER_FILES & contents(out).keys()
    with (out / RECORDS).open("ab") as file:  # as left by a process that was killed
        file.write(b'{"name": "d", "records": {"coc')
    assert sum(p.earlier for p in run(ensemble, source, out) if not p.failed) >= len(done)
    assert contents(out) == contents(tmp_path / "whole")


def test_an_image_without_a_record_is_predicted_again(ensemble: de.Ensemble, images: Path, tmp_path: Path) -> None:
    source, out = images / "right", tmp_path / "out"
    run(ensemble, source, out)
    before = contents(out)
    lines = (out / RECORDS).read_bytes().splitlines(keepends=True)
    (out / RECORDS).write_bytes(b"".join([lines[0], b"damaged\n", *lines[2:]]))
    assert sorted(p.earlier for p in run(ensemble, source, out)) == [False, True]
    (out / RECORDS).unlink()
    assert [p.earlier for p in run(ensemble, source, out)] == [False, False]
    assert contents(out) == before
    (out / "areas.csv").unlink()
    assert [p.earlier for p in run(ensemble, source, out)] == [True, True]
    assert contents(out) == before


def test_records_of_other_settings_do_not_count(ensemble: de.Ensemble, images: Path, tmp_path: Path) -> None:
    source, out = images / "right", tmp_path / "out"
    run(ensemble, source, out)
    split = FormatOptions(components=True)
    assert [p.earlier for p in run(ensemble, source, out, formats=split)] == [False, False]
    annotations = json.loads((out / "predictions.coco.json").read_text())["annotations"]
    assert len(annotations) > 2 * 2  # more than one per image and class of the foreground
    assert [p.earlier for p in run(ensemble, source, out, formats=split, again=True)] == [False, False]
    assert len((out / RECORDS).read_text().splitlines()) == 3
    # An address is not part of the records: the file is written again, and no image is predicted.
    renamed = FormatOptions(components=True, image_url="s3://bucket/")
    assert [p.earlier for p in run(ensemble, source, out, formats=renamed)] == [True, True]
    assert '"s3://bucket/a.png"' in (out / "predictions.labelstudio.json").read_text()


def test_images_of_the_last_call_are_listed_with_their_last_content(
    ensemble: de.Ensemble, images: Path, tmp_path: Path
) -> None:
    source, out = images / "right", tmp_path / "out"
    run(ensemble, source, out)
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(source / "d.png")
    run(ensemble, source, out)
    run(ensemble, source, tmp_path / "new")
    assert contents(out) == contents(tmp_path / "new")
    (source / "d.png").write_bytes(b"no image")
    assert [bool(p.failed) for p in run(ensemble, source, out)] == [False, True]
    assert names(out / "predictions.coco.json") == ["a.png"]


def test_arrays_have_entries(ensemble: de.Ensemble, tmp_path: Path) -> None:
    arrays = np.random.default_rng(0).integers(0, 256, (2, 24, 31, 3), dtype=np.uint8)
    run(ensemble, arrays, tmp_path)
    assert names(tmp_path / "predictions.coco.json") == ["0", "1"]


@pytest.mark.parametrize("task", [TASK, MultilabelTask(("a", "b"))], ids=lambda task: task.name)
def test_windows_give_the_files_of_the_whole_image(
    task: Task, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensemble, source = build(task).eval(), images / "right"
    run(ensemble, source, tmp_path / "whole")
    monkeypatch.setattr(large, "MOST_PIXELS", 1000)
    run(ensemble, source, tmp_path / "windows", tile=16)
    whole, windows = contents(tmp_path / "whole"), contents(tmp_path / "windows")
    assert whole.keys() == windows.keys()
    for name in whole:
        assert whole[name] == windows[name], name
    monkeypatch.setattr(file_kinds, "MOST_PIXELS", 700)
    with pytest.raises(UsageError, match="too large for 'coco', which needs the whole map in memory: at most"):
        run(ensemble, source, tmp_path / "refused")
    assert run(ensemble, source, tmp_path / "streamed", save=("geojson", "csv"))
    assert contents(tmp_path / "streamed")["areas.csv"] == whole["areas.csv"]


@pytest.mark.parametrize(
    ("task", "suited"),
    [
        (TASK, set(KINDS)),
        (MultilabelTask(("a", "b")), set(KINDS)),
        (HeatmapTask(("nose", "tail")), {"cvat", "csv"}),
        (HeatmapTask(("cell",), mode="density"), {"csv"}),
        (SaliencyTask(), {"csv"}),
        (DepthTask(), {"csv"}),
    ],
    ids=["segmentation", "multilabel", "keypoints", "density", "saliency", "depth"],
)
def test_kinds_that_a_task_does_not_have_are_refused(
    task: Task, suited: set[str], images: Path, tmp_path: Path
) -> None:
    assert task.name in TASKS and {kind for kind in KINDS if SAVE[kind].suits(task)} == suited
    ensemble = build(task).eval()
    for kind in set(KINDS) - suited:
        available = [name for name in SAVE if name not in KINDS or name in suited]
        with pytest.raises(UsageError, match=f"cannot be saved as '{kind}'; available: {', '.join(available)}"):
            run(ensemble, images / "right", tmp_path / "out", save=("map", kind))
    assert not (tmp_path / "out").exists()
    assert run(ensemble, images / "right", tmp_path / "out", save=tuple(sorted(suited)))


def test_the_command(ensemble: de.Ensemble, images: Path, tmp_path: Path, densemble: Callable[..., Any]) -> None:
    artifact, out = de.save(ensemble, tmp_path / "e.safetensors"), tmp_path / "out"
    arguments = ("predict", artifact, images / "left", "-o", out, "--save", "coco,labelstudio,csv", "--function", SMALL)
    options = ("--save-option", "components=true", "--save-option", "model_version=v7")
    done = densemble(*arguments, *options)
    assert done.returncode == 5 and "3 images in " in done.stderr, done.stderr
    assert names(out / "predictions.coco.json") == ["a.png", "b.png", "c.png"]
    tasks = json.loads((out / "predictions.labelstudio.json").read_text())
    assert {task["predictions"][0]["model_version"] for task in tasks} == {"v7"}
    for option, said in (
        ("crs=mars", "available: keep, wgs84"), ("colour=red", "a name of components, crs"),
        ("components", "NAME=VALUE"),
        ("components=maybe", "true or false"),
    ):  # fmt: skip
        done = densemble(*arguments, "--save-option", option)
        assert done.returncode == 2 and said in " ".join(done.stderr.split()), done.stderr
