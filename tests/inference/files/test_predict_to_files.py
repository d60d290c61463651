"""One entry point: Python writes what the command writes, and has all its options."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from small_networks import SMALL

import densemble as de
from densemble.ensemble.cascade import Cascade, Policy
from densemble.ensemble.placement import find_device, on_device
from densemble.errors import UsageError
from densemble.inference.files.journal import JOURNAL
from densemble.inference.predict import PredictOptions
from densemble.inference.tiles import predict_large as large
from densemble.messages import shown
from densemble.nets.halo import Reach
from densemble.storage.artifact import fingerprint
from densemble.tasks import SegmentationTask

TASK = SegmentationTask(("a", "b", "c"))
CASCADE = Cascade(
    "miou", True, 20, 1.0, {"quick": 0.2, "slow": 0.8},
    (Policy(("quick",), "entropy", 0.0, 0.2, 0.9, 0.9, 0.9), Policy(("quick", "slow"), "entropy", 0, 1, 1, 1, 1)),
    (),
)  # fmt: skip
SIZES = [(40, 56), (33, 21), (40, 56), (33, 21), (40, 56)]
EAGER = ("eager", "fp32")


def member(seed: int, **options: Any) -> de.DenseModel:
    torch.manual_seed(seed)
    given = {"out_channels": 3, "out_size": None, "head": "upsample", "weights": None, **options}
    model = de.DenseModel(SMALL, **given)
    torch.nn.init.normal_(model.head.logits.weight, std=2.0)
    return model.eval()


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    members = {"quick": member(0), "slow": member(1)}
    return de.save(de.Ensemble(members, task=TASK, cascade=CASCADE), tmp_path_factory.mktemp("e") / "e.safetensors")


@pytest.fixture
def ensemble(artifact: Path) -> de.Ensemble:
    return de.load(artifact, functions=(SMALL,))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Five images of two sizes, and one that is broken."""
    folder = tmp_path / "images"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number, size in enumerate(SIZES):
        Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Files by name; the lines of the journal, which threads add as they end, in alphabetical order."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    if JOURNAL in files:
        files[JOURNAL] = b"".join(sorted(files[JOURNAL].splitlines(keepends=True)))
    return files


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        ((), {}),
        (("--save", "map,overlay,uncertainty,npy", "--rank-by", "mutual_information", "--batch", 2),
         {"save": ("map", "overlay", "uncertainty", "npy"), "rank_by": "mutual_information", "batch": 2}),
        (("--budget", 0.4, "--save", "npy"), {"budget": 0.4, "save": ("npy",)}),
        (("--keep", 0.9, "--save", "npy"), {"keep": 0.9, "save": ("npy",)}),
    ],
)  # fmt: skip
def test_python_and_the_command_write_the_same_bytes(
    flags: tuple[Any, ...],
    options: dict[str, Any],
    artifact: Path,
    ensemble: de.Ensemble,
    images: Path,
    tmp_path: Path,
    densemble: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (128, 160, 3), dtype=np.uint8)
    tifffile.imwrite(images / "large.tif", pixels, tile=(64, 64))
    monkeypatch.setattr(large, "MOST_PIXELS_SEEN", 100 * 100)
    reaches = dict.fromkeys(("quick", "slow"), Reach(None, "it takes seconds to measure"))
    monkeypatch.setattr("densemble.inference.predict.measure_reaches", lambda ensemble: reaches)
    arguments = ("predict", artifact, images, "-o", tmp_path / "command", "--function", SMALL, "--tile", 96)
    done = densemble(*arguments, "--backend", "eager", "--precision", "fp32", *flags)
    assert done.returncode == 5, done.stderr  # one of them is broken
    logged: list[str] = []
    given = PredictOptions(tile=96, fingerprint=fingerprint(artifact), **options)
    with shown(logged.append):
        results = list(de.predict(ensemble, images, *EAGER, out=tmp_path / "python", options=given))
    assert contents(tmp_path / "python") == contents(tmp_path / "command")
    assert [result.name for result in results] == ["0", "1", "2", "3", "4", "broken", "large"]
    assert [result.name for result in results if result.failed is not None] == ["broken"]
    written = {file for result in results if result.failed is None for file in result.files}
    kept = {JOURNAL, *(("ranking.csv",) if "rank_by" in options else ())}
    assert {file.name for file in written} | kept == contents(tmp_path / "python").keys()
    assert any("images per second" in line for line in logged)
    assert any(line.startswith("cascade: quick") for line in logged) == ("budget" in options or "keep" in options)


def test_files_are_those_of_predictions_in_memory(ensemble: de.Ensemble, images: Path, tmp_path: Path) -> None:
    options = PredictOptions(batch=1)
    for p in de.predict(ensemble, images, *EAGER, out=tmp_path / "out", options=options):
        assert (p.name == "broken") == (p.failed is not None)
    (tmp_path / "out" / JOURNAL).unlink()
    for p in de.predict(ensemble, images, *EAGER):
        if p.failed is None:
            p.save(tmp_path / "memory")
    assert contents(tmp_path / "memory") == contents(tmp_path / "out")


def test_a_folder_is_resumed(ensemble: de.Ensemble, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def earlier(net: de.Ensemble = ensemble, **options: Any) -> dict[str, bool]:
        given = PredictOptions(save=("npy",), **options)
        results = list(de.predict(net, images, *EAGER, out=out, options=given))
        return {p.name: p.earlier for p in results if p.failed is None}

    names = [str(number) for number in range(len(SIZES))]
    assert earlier() == dict.fromkeys(names, False)
    assert earlier() == dict.fromkeys(names, True)
    (out / "1.npy").unlink()
    assert earlier() == {**dict.fromkeys(names, True), "1": False}
    assert earlier(again=True) == dict.fromkeys(names, False)
    assert earlier(budget=0.4) == dict.fromkeys(names, False)
    assert earlier(budget=0.4) == dict.fromkeys(names, True)
    other = de.Ensemble(dict(ensemble.named_members()), [1, 2], TASK, cascade=CASCADE).eval()
    assert earlier(other, budget=0.4) == dict.fromkeys(names, False)


def test_nothing_happens_before_the_first_prediction_is_requested(
    ensemble: de.Ensemble, images: Path, tmp_path: Path
) -> None:
    results = de.predict(ensemble, images, *EAGER, out=tmp_path / "out")
    assert contents(tmp_path / "out") == {}
    assert next(results).name == "0" and (tmp_path / "out" / "0_map.png").is_file()
    results.close()  # type: ignore[attr-defined]


def test_arrays_are_written_and_never_resumed(ensemble: de.Ensemble, tmp_path: Path) -> None:
    arrays = np.random.default_rng(0).integers(0, 256, (2, 30, 40, 3), dtype=np.uint8)
    for _ in range(2):
        results = list(de.predict(ensemble, arrays, *EAGER, out=tmp_path, options=PredictOptions(save=("npy",))))
        assert [(p.path, p.earlier, p.files) for p in results] == [
            (None, False, (tmp_path / f"{number}.npy",)) for number in range(2)
        ]
    for p in de.predict(ensemble, arrays, *EAGER, options=PredictOptions(batch=2)):
        np.testing.assert_array_equal(np.load(tmp_path / f"{p.name}.npy"), p.mean.numpy())


def test_a_budget_stops_early(ensemble: de.Ensemble, images: Path) -> None:
    alone = de.Ensemble({"quick": ensemble.members["quick"]}, task=TASK).eval()
    quick = de.predict(ensemble, images / "0.png", *EAGER, options=PredictOptions(budget=0.4))
    for found, expected in zip(quick, de.predict(alone, images / "0.png", *EAGER), strict=True):
        assert torch.equal(found.mean, expected.mean)
    with pytest.raises(UsageError, match="contradict"):
        de.predict(ensemble, images, options=PredictOptions(keep=0.9, budget=0.4))
    with pytest.raises(UsageError, match="no cascade"):
        de.predict(alone, images, options=PredictOptions(keep=0.9))


def test_a_batch_has_the_requested_size(ensemble: de.Ensemble, images: Path) -> None:
    seen: list[int] = []
    hook = ensemble.members["quick"].register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    together = list(de.predict(ensemble, images, *EAGER, options=PredictOptions(batch=3)))
    assert seen == [3, 2]
    seen.clear()
    single = list(de.predict(ensemble, images, *EAGER))
    hook.remove()
    assert seen == [1] * 5
    for one, other in zip(together, single, strict=True):
        assert one.name == other.name
        if one.failed is None:
            torch.testing.assert_close(one.mean, other.mean, rtol=0, atol=1e-5)


def test_the_device_is_that_of_a_copy(ensemble: de.Ensemble, images: Path) -> None:
    (here,) = de.predict(ensemble, images / "0.png", *EAGER)
    for device in ("cpu", "cpu:0"):
        (there,) = de.predict(ensemble, images / "0.png", *EAGER, device=device)
        assert torch.equal(here.mean, there.mean)
    with pytest.raises(UsageError, match="cannot compute on device 'tpu9'"):
        de.predict(ensemble, images, device="tpu9")
    moved = on_device(ensemble, "meta")
    assert [next(net.parameters()).device.type for net in (ensemble, moved)] == ["cpu", "meta"]
    assert on_device(ensemble, "cpu") is ensemble
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(
    ("out", "options", "said"),
    [
        (None, {"rank_by": "entropy"}, "pass a folder"),
        (None, {"again": True}, "pass a folder"),
        (None, {"save": ("npy",)}, "save is for files: pass a folder"),
        ("out", {"save": ("video",)}, "cannot save 'video'; available: map"),
        ("out", {"save": ()}, "no kind of file"),
        ("out", {"save": ("guarantee",)}, "has no guarantee"),
        ("out", {"rank_by": "age"}, "cannot be ranked by 'age'"),
        ("out", {"batch": 0}, "at least 1 image"),
    ],
)
def test_invalid_options(
    out: str | None, options: dict[str, Any], said: str, ensemble: de.Ensemble, images: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        de.predict(ensemble, images, out=out and tmp_path / out, options=PredictOptions(**options))
    assert not list(tmp_path.glob("out/*"))
