"""Different images get different file names, within one call and over several calls."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_networks import small_dense

import densemble as de
from densemble.inference.files.output_names import output_names


@pytest.fixture(scope="module")
def ensemble() -> de.Ensemble:
    return de.Ensemble([small_dense()]).eval()


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Two folders with an image of the same name, and other pixels."""
    files = [tmp_path / name / "x.png" for name in ("a", "b")]
    for number, file in enumerate(files):
        file.parent.mkdir()
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(file)
    return files


def test_names() -> None:
    a, b, jpg, other = Path("a/x.png"), Path("b/x.png"), Path("a/x.jpg"), Path("a/y.png")
    assert output_names([a, other]) == ["x", "y"]
    assert output_names([a, b, jpg, other]) == ["a_x_png", "b_x_png", "a_x_jpg", "y"]
    assert output_names([a, Path("c/a/x.png")]) == ["a_x_png", "a_x_png_2"]
    assert output_names([a, Path("b/X.png"), Path("c/y.png")]) == ["a_x_png", "b_X_png", "y"]  # one file on Windows
    assert output_names([Path("a/x.png"), Path("c/A/X.png")]) == ["a_x_png", "A_X_png_2"]
    assert len(set(output_names([np.zeros(1), Path("1.png"), np.zeros(1), Path("0.png")]))) == 4


def test_the_same_name_in_two_folders(ensemble: de.Ensemble, folders: list[Path], tmp_path: Path) -> None:
    predictions = list(de.predict(ensemble, folders))
    written = [p.save(tmp_path / "out", ("npy",))[0] for p in predictions]
    assert [path.name for path in written] == ["a_x_png.npy", "b_x_png.npy"]
    assert all(np.array_equal(np.load(path), p.mean) for path, p in zip(written, predictions, strict=True))


def test_the_same_name_in_two_calls(ensemble: de.Ensemble, folders: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    for _ in range(2):  # what was predicted again is written again
        for file, name in zip(folders, ("x.npy", "b_x_png.npy"), strict=True):
            (p,) = de.predict(ensemble, file)
            (path,) = p.save(out, ("npy",))
            assert path.name == name and np.array_equal(np.load(path), p.mean)
    assert len(list(out.iterdir())) == 2
    assert [path.name for path in p.save(tmp_path / "other", ("npy",))] == ["x.npy"]
    assert [path.name for path in p.save(out, ("npy",), name="x")] == ["x.npy"]


def test_names_that_differ_in_case(ensemble: de.Ensemble, folders: list[Path], tmp_path: Path) -> None:
    """On Windows and macOS, x.npy and X.npy are one file."""
    files = [folders[0], folders[1].rename(tmp_path / "b" / "X.png")]
    for _ in range(2):
        for file, name in zip(files, ("x.npy", "b_X_png.npy"), strict=True):
            (p,) = de.predict(ensemble, file)
            assert [path.name for path in p.save(tmp_path / "out", ("npy",))] == [name]


def test_a_name_is_free_again_when_its_files_are_gone(
    ensemble: de.Ensemble, folders: list[Path], tmp_path: Path
) -> None:
    for file in folders:
        (p,) = de.predict(ensemble, file)
        assert [path.name for path in p.save(tmp_path / "out", ("npy",))] == ["x.npy"]
        shutil.rmtree(tmp_path / "out")


def test_arrays_in_two_calls(ensemble: de.Ensemble, tmp_path: Path) -> None:
    batch = torch.rand(4, 3, 48, 64)
    written = {}
    for images in (batch[:2], batch[2:]):
        for p in de.predict(ensemble, images):
            (path,) = p.save(str(tmp_path), ("npy",))
            assert p.save(tmp_path, ("npy",)) == [path]
            written[path.name] = p.mean
    assert list(written) == ["0.npy", "1.npy", "0_2.npy", "1_2.npy"]
    assert all(np.array_equal(np.load(tmp_path / name), mean) for name, mean in written.items())
