"""Maps are read as the numbers they are."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from densemble.errors import DataError, ResourceError
from densemble.storage.images import read_image, read_labels, read_points, read_values, write_npy, write_png


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
def test_values_survive_every_format(kind: str, tmp_path: Path) -> None:
    values = (np.random.default_rng(0).random((7, 9)) * 200).astype(kind)
    tifffile.imwrite(tmp_path / "m.tif", values)
    np.save(tmp_path / "m.npy", values)
    files = ["m.tif", "m.npy"]
    if kind != "float32":
        write_png(tmp_path / "m.png", values)
        files.append("m.png")
    for name in files:
        np.testing.assert_array_equal(read_values(tmp_path / name), values.astype(np.float32))


def test_points_and_grey_rgb_labels(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).random((6, 8)) > 0.7
    Image.fromarray(mask).save(tmp_path / "p.png")
    assert np.array_equal(read_points(tmp_path / "p.png"), mask)
    labels = np.random.default_rng(0).integers(0, 5, (6, 8), dtype=np.uint8)
    Image.fromarray(np.repeat(labels[..., None], 3, 2)).save(tmp_path / "g.png")
    assert np.array_equal(read_labels(tmp_path / "g.png"), labels)


def test_pictures_become_rgb(tmp_path: Path) -> None:
    Image.new("L", (4, 3), 77).save(tmp_path / "g.png")
    assert (read_image(tmp_path / "g.png") == 77).all() and read_image(tmp_path / "g.png").shape == (3, 4, 3)
    write_png(tmp_path / "deep.png", np.full((3, 4), 257 * 40, np.uint16))
    assert (read_image(tmp_path / "deep.png") == 40).all()


def test_bad_files(tmp_path: Path) -> None:
    np.save(tmp_path / "huge.npy", np.zeros((2, 2)))
    raw = (tmp_path / "huge.npy").read_bytes().replace(b"(2, 2)", b"(200000, 200000)")
    (tmp_path / "huge.npy").write_bytes(raw)
    Image.new("RGB", (4, 3), (1, 2, 3)).save(tmp_path / "colour.png")
    np.save(tmp_path / "fraction.npy", np.full((2, 2), 0.5))
    (tmp_path / "bad.tif").write_bytes(b"II*\0nothing")
    for name in ("huge.npy", "colour.png", "fraction.npy", "bad.tif", "absent.png"):
        with pytest.raises(DataError, match=name):
            read_labels(tmp_path / name)


def test_writing_where_one_cannot(tmp_path: Path) -> None:
    for write in (write_png, write_npy):
        with pytest.raises(ResourceError, match="choose another folder"):
            write(tmp_path / "absent" / "m", np.zeros((2, 2), np.uint8))
