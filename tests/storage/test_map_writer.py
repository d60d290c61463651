"""Maps written row by row equal the input; checked with tifffile, zarr and rasterio."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from sampled import sampled

from densemble.errors import ResourceError, UsageError
from densemble.storage.images import Array, read_planes
from densemble.storage.large_image import tiff_writer, zarr_writer

zarr = pytest.importorskip("zarr")

RANDOM = np.random.default_rng(0)


def samples(*shape: int, dtype: str = "uint8") -> Array:
    if np.dtype(dtype).kind == "f":
        return RANDOM.standard_normal(shape).astype(dtype)
    limits = np.iinfo(dtype)
    return RANDOM.integers(limits.min, limits.max, shape, dtype, endpoint=True)


WRITERS = {"tif": tiff_writer, "zarr": zarr_writer}
READERS = {"tif": tifffile.imread, "zarr": lambda path: zarr.open(path, mode="r")[...]}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int64", "float16", "float32", "float64"])
@pytest.mark.parametrize("bands", sampled([1, 2, 3, 7], [1, 3]))
@pytest.mark.parametrize("size", [(1, 1), (256, 512), (600, 301)])
def test_a_map_is_what_was_written(kind: str, dtype: str, bands: int, size: tuple[int, int], tmp_path: Path) -> None:
    values = samples(bands, *size, dtype=dtype)
    path = tmp_path / f"map.{kind}"
    with WRITERS[kind](path, size, bands, np.dtype(dtype)) as writer:
        done = 0
        while done < size[0]:
            rows = int(RANDOM.integers(1, 400))
            writer.write(values[0, done : done + rows] if bands == 1 else values[:, done : done + rows])
            done += rows
    np.testing.assert_array_equal(READERS[kind](path), values[0] if bands == 1 else values)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64"])
@pytest.mark.parametrize("bands", [1, 4])
def test_gdal_and_our_own_reader_read_the_map(dtype: str, bands: int, tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    values = samples(bands, 300, 520, dtype=dtype)
    with tiff_writer(tmp_path / "map.tif", (300, 520), bands, np.dtype(dtype)) as writer:
        writer.write(values)
    with rasterio.open(tmp_path / "map.tif") as file:
        np.testing.assert_array_equal(file.read(), values)
        assert file.block_shapes == [(256, 256)] * bands
        assert file.compression.name == "deflate"
        assert set(file.colorinterp[1:]) <= {rasterio.enums.ColorInterp.undefined}  # no band is called alpha
    np.testing.assert_array_equal(read_planes(tmp_path / "map.tif"), values.transpose(1, 2, 0))


@pytest.mark.parametrize(("classic_bytes", "big"), [(0, True), (15 << 28, False)])
def test_bigtiff_where_classic_offsets_could_end(
    classic_bytes: int, big: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("densemble.storage.map_writer._CLASSIC_BYTES", classic_bytes)
    values = samples(3, 300, 520)
    with tiff_writer(tmp_path / "map.tif", (300, 520), 3, np.dtype("uint8")) as writer:
        writer.write(values)
    with tifffile.TiffFile(tmp_path / "map.tif") as file:
        assert file.is_bigtiff == big
        np.testing.assert_array_equal(file.asarray(), values)


@pytest.mark.parametrize("source", [{"tiled": True, "blockxsize": 16, "blockysize": 16}, {"bigtiff": "YES"}])
@pytest.mark.parametrize("rotated", [False, True])
def test_a_map_has_the_georeference_of_its_image(source: dict[str, Any], rotated: bool, tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    transform = rasterio.Affine(0.5, 0.1 if rotated else 0, 4e5, 0.2 if rotated else 0, -0.5, 5e6)
    image = tmp_path / "p.tif"
    options = {"driver": "GTiff", "count": 3, "dtype": "uint8", "nodata": 0}
    with rasterio.open(
        image, "w", width=70, height=40, crs="EPSG:32633", transform=transform, **options, **source
    ) as file:
        file.write(samples(3, 40, 70))
    with tiff_writer(tmp_path / "map.tif", (40, 70), 1, np.dtype("float32"), georeference_from=image) as writer:
        writer.write(samples(40, 70, dtype="float32"))
    with rasterio.open(tmp_path / "map.tif") as file, rasterio.open(image) as original:
        assert file.crs == original.crs
        assert file.transform == original.transform == transform
        assert file.nodata is None  # 0 is a value of the map
    with (
        pytest.raises(UsageError, match=r"40x70.*41x70"),
        tiff_writer(tmp_path / "other.tif", (41, 70), 1, np.dtype("uint8"), georeference_from=image),
    ):
        pass


def test_images_without_a_georeference_give_none(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "p.tif", samples(5, 6))
    zarr.create_array(tmp_path / "p.zarr", data=samples(5, 6))
    for name in ("p.tif", "p.zarr"):
        with tiff_writer(tmp_path / "map.tif", (5, 6), 1, np.dtype("uint8"), tmp_path / name) as writer:
            writer.write(samples(5, 6))
        with tifffile.TiffFile(tmp_path / "map.tif") as file:
            assert not file.is_geotiff


@pytest.mark.parametrize("kind", WRITERS)
def test_a_writer_that_is_left_early_leaves_nothing_behind(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"map.{kind}"
    with (
        pytest.raises(KeyboardInterrupt),
        WRITERS[kind](path, (600, 300), 1, np.dtype("uint8")) as writer,
    ):
        writer.write(samples(300, 300))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", WRITERS)
def test_an_older_map_stays_until_the_new_one_is_whole(kind: str, tmp_path: Path) -> None:
    path, older, newer = tmp_path / f"map.{kind}", samples(9, 8), samples(6, 7)
    with WRITERS[kind](path, (9, 8), 1, np.dtype("uint8")) as writer:
        writer.write(older)
    with (
        pytest.raises(UsageError, match=r"got 5 of 6 rows"),
        WRITERS[kind](path, (6, 7), 1, np.dtype("uint8")) as writer,
    ):
        writer.write(newer[:5])
    np.testing.assert_array_equal(READERS[kind](path), older)
    with WRITERS[kind](path, (6, 7), 1, np.dtype("uint8")) as writer:
        writer.write(newer)
    np.testing.assert_array_equal(READERS[kind](path), newer)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize(
    ("shape", "dtype"), [((7, 8), "uint8"), ((2, 3, 7), "uint8"), ((3, 7), "int8"), ((7, 7), "uint8"), ((7,), "uint8")]
)
def test_rows_that_do_not_fit_are_refused(kind: str, shape: tuple[int, ...], dtype: str, tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match=r"takes rows|has 6 rows"),
        WRITERS[kind](tmp_path / f"map.{kind}", (6, 7), 1, np.dtype("uint8")) as writer,
    ):
        writer.write(samples(*shape, dtype=dtype))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", WRITERS)
def test_a_folder_that_cannot_be_written(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "absent" / f"map.{kind}" if kind == "tif" else tmp_path / "file" / f"map.{kind}"
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ResourceError, match=r"cannot write.*map"), WRITERS[kind](path, (6, 7), 1, np.dtype("uint8")):
        pass


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("resource")
    script = f"""
import resource, signal, numpy as np
from pathlib import Path
from densemble.errors import ResourceError
from densemble.storage.large_image import {WRITERS[kind].__name__} as writer
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
rows = np.random.default_rng(0).random((512, 512))
with writer(Path({str(tmp_path / f"map.{kind}")!r}), (512, 512), 1, rows.dtype) as open_writer:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        open_writer.write(rows)
    except ResourceError as error:
        print(error)
        raise SystemExit(6)
"""
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert finished.returncode == 6, finished.stderr
    assert f"map.{kind}" in finished.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_zarr_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with (
        pytest.raises(UsageError, match=r"mine.*is not a Zarr"),
        zarr_writer(tmp_path / "mine", (6, 7), 1, np.dtype("uint8")),
    ):
        pass
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_without_zarr_its_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zarr", None)
    with (
        pytest.raises(UsageError, match=r"densemble\[zarr\]"),
        zarr_writer(tmp_path / "map.zarr", (6, 7), 1, np.dtype("uint8")),
    ):
        pass
