"""Windows of large images equal slices of them; checked with tifffile, zarr, numpy and rasterio."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from sampled import sampled

from densemble.errors import DataError, UsageError
from densemble.storage.images import Array, read_image
from densemble.storage.large_image import is_large, open_large

zarr = pytest.importorskip("zarr")

RANDOM = np.random.default_rng(0)


def samples(*shape: int, dtype: str = "uint8") -> Array:
    if np.dtype(dtype).kind == "f":
        return RANDOM.standard_normal(shape).astype(dtype)
    limits = np.iinfo(dtype)
    return RANDOM.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def random_windows(height: int, width: int, count: int = 8) -> list[tuple[int, int, int, int]]:
    windows = [(0, 0, height, width), (height - 1, width - 1, 1, 1)]
    for _ in range(count):
        top, left = int(RANDOM.integers(height)), int(RANDOM.integers(width))
        windows.append(
            (top, left, int(RANDOM.integers(1, height - top + 1)), int(RANDOM.integers(1, width - left + 1)))
        )
    return windows


def require_windows_of(path: Path, whole: Array) -> None:
    with open_large(path) as image:
        assert (*image.size, image.channels) == whole.shape
        assert image.dtype == whole.dtype
        for top, left, height, width in random_windows(*image.size):
            window = image.read(top, left, height, width)
            assert window.dtype == whole.dtype
            np.testing.assert_array_equal(window, whole[top : top + height, left : left + width])


# --- TIFF -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("segments", [{"tile": (32, 48)}, {"rowsperstrip": 7}, {}], ids=["tiles", "strips", "default"])
@pytest.mark.parametrize("compression", [None, "deflate", "lzw", "zstd"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize(("channels", "planar"), [(3, "contig"), (3, "separate"), (5, "separate"), (2, "contig")])
def test_windows_of_a_tiff_are_slices_of_it(
    segments: dict[str, Any], compression: str | None, dtype: str, channels: int, planar: str, tmp_path: Path
) -> None:
    values = samples(83, 101, channels, dtype=dtype)
    stored = values if planar == "contig" else values.transpose(2, 0, 1)
    tifffile.imwrite(
        tmp_path / "p.tif",
        stored,
        photometric="minisblack",
        planarconfig=planar,
        compression=compression,
        predictor=compression == "lzw",
        **segments,
    )
    require_windows_of(tmp_path / "p.tif", values)


@pytest.mark.parametrize("extra", [{"tile": (16, 16)}, {"rowsperstrip": 8, "compression": "deflate"}, {}])
@pytest.mark.parametrize("kind", ["big", "other byte order", "grey", "minus white", "alpha", "palette", "int32"])
def test_windows_have_the_conventions_of_images(kind: str, extra: dict[str, Any], tmp_path: Path) -> None:
    values, options = samples(50, 70, 3, dtype="uint16"), {"photometric": "rgb"}
    match kind:
        case "big":
            options["bigtiff"] = True
        case "other byte order":
            options["byteorder"] = ">"
        case "grey":
            values, options = values[:, :, 0], {}
        case "minus white":
            values, options = values[:, :, 0], {"photometric": "miniswhite"}
        case "alpha":
            values, options = samples(50, 70, 4), {"photometric": "rgb", "extrasamples": ["unassalpha"]}
        case "palette":
            values, options = samples(50, 70), {"photometric": "palette", "colormap": samples(3, 256, dtype="uint16")}
        case "int32":
            values, options = samples(50, 70, dtype="int32"), {}
    tifffile.imwrite(tmp_path / "p.tif", values, **options, **extra)
    expected = read_image(tmp_path / "p.tif")
    if kind in ("big", "other byte order"):
        np.testing.assert_array_equal(expected, values)
    require_windows_of(tmp_path / "p.tif", expected)


def test_few_bits_a_sample(tmp_path: Path) -> None:
    bits = samples(40, 53) > 127
    tifffile.imwrite(tmp_path / "one.tif", bits, photometric="minisblack")
    require_windows_of(tmp_path / "one.tif", bits[:, :, None].repeat(3, 2).astype(np.uint8) * 255)
    four = samples(40, 53) >> 4
    tifffile.imwrite(tmp_path / "four.tif", four, bitspersample=4)
    require_windows_of(tmp_path / "four.tif", four[:, :, None].repeat(3, 2) * 17)


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 2)])
def test_jpeg_tiles(subsampling: tuple[int, int], tmp_path: Path) -> None:
    values = samples(70, 90, 3)
    tifffile.imwrite(tmp_path / "p.tif", values, tile=(32, 32), compression="jpeg", subsampling=subsampling)
    require_windows_of(tmp_path / "p.tif", tifffile.imread(tmp_path / "p.tif"))


@pytest.mark.parametrize("in_subifds", [True, False])
def test_the_full_resolution_of_a_pyramid(in_subifds: bool, tmp_path: Path) -> None:
    values = samples(64, 96, 3)
    with tifffile.TiffWriter(tmp_path / "p.tif") as writer:
        writer.write(values, tile=(16, 16), subifds=1 if in_subifds else None)
        writer.write(values[::2, ::2].copy(), tile=(16, 16), subfiletype=1)
    require_windows_of(tmp_path / "p.tif", values)


@pytest.mark.parametrize("extra", [{"tile": (16, 16), "compression": "deflate"}, {}])
@pytest.mark.parametrize("kind", ["ome", "imagej"])
def test_channels_in_pages(kind: str, extra: dict[str, Any], tmp_path: Path) -> None:
    values = samples(5, 40, 50)
    path = tmp_path / ("p.ome.tif" if kind == "ome" else "p.tif")
    options = {} if kind == "imagej" else extra
    tifffile.imwrite(
        path, values, photometric="minisblack", metadata={"axes": "CYX"}, imagej=kind == "imagej", **options
    )
    require_windows_of(path, values.transpose(1, 2, 0))


@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_sparse_tiles_hold_the_nodata_value(interleave: str, tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    layout = {"tiled": True, "blockxsize": 16, "blockysize": 16, "sparse_ok": True, "interleave": interleave}
    path = tmp_path / "p.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=60, height=44, count=3, dtype="uint8", nodata=7, compress="deflate", **layout
    ) as file:
        file.write(samples(3, 16, 16), window=rasterio.windows.Window(16, 16, 16, 16))
    with rasterio.open(path) as file:
        whole = file.read().transpose(1, 2, 0)
    assert (whole[:16] == 7).all()
    np.testing.assert_array_equal(read_image(path), whole)
    known = (whole != 7).any(axis=2)
    require_windows_of(path, np.where(known[..., None], whole, 0))


def test_neighbouring_windows_decode_a_tile_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "p.tif", samples(64, 256, 3), tile=(16, 16), compression="deflate")
    with open_large(tmp_path / "p.tif") as image:
        read, counted = tifffile.FileHandle.read, []
        monkeypatch.setattr(tifffile.FileHandle, "read", lambda *args: counted.append(1) or read(*args))
        for left in range(0, 256 - 40 + 1, 24):  # they overlap by 16 and touch every tile of four rows
            image.read(0, left, 64, 40)
        assert len(counted) == 4 * 16 - 1  # the first tile was decoded when the image was opened


@pytest.mark.parametrize("options", [{"tile": (16, 16), "compression": "deflate"}, {}], ids=["tiles", "plain"])
def test_threads_may_share_an_image(options: dict[str, Any], tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "p.tif", values := samples(96, 128, 3), **options)
    windows = random_windows(96, 128, count=60)
    with open_large(tmp_path / "p.tif") as image, ThreadPoolExecutor(4) as threads:
        read = threads.map(lambda window: image.read(*window), windows)
        for (top, left, height, width), window in zip(windows, read, strict=True):
            np.testing.assert_array_equal(window, values[top : top + height, left : left + width])


def test_a_small_image_with_an_orientation_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "p.tif", values := samples(20, 30, 3), extratags=[(274, 3, 1, 6, True)])
    require_windows_of(tmp_path / "p.tif", np.rot90(values, -1))
    monkeypatch.setenv("DENSEMBLE_IMAGE_MEMORY", "1K")
    with open_large(tmp_path / "p.tif") as image:  # not compressed: it takes no more memory than its file
        assert image.size == (30, 20)
    options = {"extratags": [(274, 3, 1, 6, True)], "compression": "deflate"}
    tifffile.imwrite(tmp_path / "p.tif", np.zeros((20, 30, 3), np.uint8), **options)
    with pytest.raises(DataError, match=r"p\.tif.*claims 1 MiB.*more than.*save it upright as tiled TIFF"):
        open_large(tmp_path / "p.tif")


@pytest.mark.parametrize("extra", [{"tile": (16, 16), "compression": "deflate"}, {"tile": (16, 16)}, {}])
def test_a_tiff_that_is_cut_short_is_refused_when_opened(extra: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "p.tif"
    tifffile.imwrite(path, samples(80, 90, 3), **extra)
    os.truncate(path, path.stat().st_size - 3000)
    with pytest.raises(DataError, match=r"p\.tif.*cut short"):
        open_large(path)


def test_a_damaged_tile_is_named_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "p.tif"
    tifffile.imwrite(path, values := samples(64, 64, 3), tile=(32, 32), compression="deflate")
    with tifffile.TiffFile(path) as file:
        offset = file.pages.first.dataoffsets[3]
    with path.open("rb+") as stream:
        stream.seek(offset)
        stream.write(b"\xff" * 64)
    with open_large(path) as image:
        np.testing.assert_array_equal(image.read(0, 0, 32, 64), values[:32])
        with pytest.raises(DataError, match=r"p\.tif"):
            image.read(32, 32, 8, 8)


def test_a_small_file_that_claims_huge_tiles_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.tif"
    tifffile.imwrite(path, samples(16, 16, 3), tile=(16, 16), compression="deflate")
    with tifffile.TiffFile(path, mode="r+b") as file:
        for tag in (256, 257, 322, 323):  # width, length, tile width, tile length
            file.pages.first.tags[tag].overwrite(32768)
    with pytest.raises(DataError, match=r"p\.tif.*claims 6144 MiB"):
        open_large(path)


def test_an_image_of_gigapixels_in_few_bytes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "p.tif"
    side, tile = 32768, 4096
    tiles = (np.full((tile, tile, 3), number, np.uint8) for number in range((side // tile) ** 2))
    tifffile.imwrite(
        path,
        tiles,
        shape=(side, side, 3),
        dtype="uint8",
        tile=(tile, tile),
        photometric="rgb",
        compression="zstd",
        maxworkers=1,
    )
    assert is_large(path)
    assert path.stat().st_size < 1 << 20
    with open_large(path) as image:
        assert image.size == (side, side)
        window = image.read(side - 2, tile - 3, 2, 5)
        assert window[..., 0].tolist() == [[56, 56, 56, 57, 57]] * 2


MEASURE = """
import resource, sys
from pathlib import Path
import numpy as np
from densemble.storage.large_image import open_large, tiff_writer

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

def walk(path):
    with (
        open_large(Path(path)) as image,
        tiff_writer(Path(path + ".map"), image.size, 1, np.dtype("uint8")) as writer,
    ):
        for top in range(0, image.size[0], 512):
            columns = range(0, image.size[1], 512)
            writer.write(np.concatenate([image.read(top, left, 512, 512)[..., 0] for left in columns], axis=1))

walk(sys.argv[1])
before = peak()
walk(sys.argv[2])
print((peak() - before) // 1024)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="resource is not on Windows")
@pytest.mark.parametrize(
    "options",
    [{"tile": (256, 256), "compression": "zlib"}, pytest.param({}, marks=pytest.mark.slow)],
    ids=["tiles", "plain"],
)
def test_memory_does_not_grow_with_the_image(options: dict[str, Any], tmp_path: Path) -> None:
    for side in (1024, 8192):
        row = np.zeros((1, 1, 3), np.uint8)
        tifffile.imwrite(
            tmp_path / f"{side}.tif", np.broadcast_to(row, (side, side, 3)), photometric="rgb", maxworkers=1, **options
        )
    script = [sys.executable, "-c", MEASURE, str(tmp_path / "1024.tif"), str(tmp_path / "8192.tif")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    grown = subprocess.run(script, capture_output=True, text=True, check=True, env=environment).stdout
    assert int(grown) < 20  # MiB; the image has 192, its map 64, and 512 rows of the map 4


# --- NPY, Zarr and the rest -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", ">u2", "float32", "float64", "bool"])
@pytest.mark.parametrize("shape", [(90, 110), (90, 110, 3), (3, 90, 110), (1, 3, 90, 110), (90, 110, 1)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_windows_of_an_npy(dtype: str, shape: tuple[int, ...], order: str, tmp_path: Path) -> None:
    values = samples(*shape).astype(dtype)
    np.save(tmp_path / "p.npy", np.asarray(values, order=order))
    image = values[0] if len(shape) == 4 else values
    image = image.transpose(1, 2, 0) if shape[-3:] == (3, 90, 110) else image.reshape(90, 110, -1)
    image = image.repeat(3, 2) if image.shape[2] == 1 else image
    expected = "uint8" if dtype == "bool" else "uint16" if dtype == ">u2" else dtype.replace("64", "32")
    require_windows_of(tmp_path / "p.npy", image.astype(expected) * (255 if dtype == "bool" else 1))


@pytest.mark.parametrize("damage", ["cut short", "no header"])
def test_a_damaged_npy(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "p.npy"
    np.save(path, samples(90, 110))
    os.truncate(path, 9000 if damage == "cut short" else 20)
    with pytest.raises(DataError, match=r"p\.npy"):
        open_large(path)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("dtype", sampled(["uint8", ">u2", "float32"], [">u2"]))
@pytest.mark.parametrize(
    ("shape", "chunks"),
    [
        ((400, 500), (64, 90)),
        ((400, 500), (400, 500)),
        ((400, 500, 3), (300, 100, 3)),
        ((3, 400, 500), (1, 300, 300)),
        ((5, 400, 500), (2, 100, 700)),
        ((1, 3, 1, 400, 500), (1, 1, 1, 64, 64)),
    ],
)
def test_windows_of_a_zarr(
    zarr_format: int, dtype: str, shape: tuple[int, ...], chunks: tuple[int, ...], tmp_path: Path
) -> None:
    values = samples(*shape).astype(dtype)
    array = zarr.create_array(
        tmp_path / "p.zarr", shape=shape, chunks=chunks, dtype=dtype, zarr_format=zarr_format, fill_value=0
    )
    array[...] = values
    image = values.reshape([length for length in shape if length != 1])
    image = image.transpose(1, 2, 0) if image.shape[-1] == 500 and image.ndim == 3 else image
    image = image[:, :, None].repeat(3, 2) if image.ndim == 2 else image
    require_windows_of(tmp_path / "p.zarr", image.astype("uint16" if dtype == ">u2" else dtype))


@pytest.mark.parametrize("kind", ["one array", "ome 0.4", "ome 0.5"])
def test_windows_of_a_zarr_group(kind: str, tmp_path: Path) -> None:
    values = samples(3, 80, 96)
    group = zarr.open_group(tmp_path / "p.zarr", mode="w", zarr_format=2 if kind == "ome 0.4" else 3)
    group.create_array("full", data=values)
    if kind != "one array":
        group.create_array("half", data=values[:, ::2, ::2])
        pyramid = {"multiscales": [{"datasets": [{"path": "full"}, {"path": "half"}]}]}
        group.attrs.update(pyramid if kind == "ome 0.4" else {"ome": pyramid})
    require_windows_of(tmp_path / "p.zarr", values.transpose(1, 2, 0))


def test_zarrs_that_are_no_images(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "two.zarr", mode="w")
    group.create_array("a", data=samples(8, 9))
    group.create_array("b", data=samples(8, 9))
    with pytest.raises(DataError, match=r"two\.zarr.* arrays .*name the folder"):
        open_large(tmp_path / "two.zarr")
    zarr.create_array(tmp_path / "volume.zarr", data=samples(90, 80, 70))
    with pytest.raises(DataError, match=r"volume\.zarr.*\(90, 80, 70\)"):
        open_large(tmp_path / "volume.zarr")
    zarr.create_array(tmp_path / "coarse.zarr", shape=(99_999, 99_999), chunks=(99_999, 99_999), dtype="uint8")
    with pytest.raises(DataError, match=r"coarse\.zarr.*chunks of 9536 MiB"):
        open_large(tmp_path / "coarse.zarr")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"folder.*is not a Zarr"):
        open_large(tmp_path / "folder")


def test_a_damaged_chunk_is_named_when_it_is_read(tmp_path: Path) -> None:
    array = zarr.create_array(tmp_path / "p.zarr", shape=(512, 512), chunks=(256, 256), dtype="uint8")
    array[...] = values = samples(512, 512)
    (tmp_path / "p.zarr" / "c" / "1" / "1").write_bytes(b"damage")
    with open_large(tmp_path / "p.zarr") as image:
        np.testing.assert_array_equal(image.read(0, 0, 256, 512)[..., 0], values[:256])
        with pytest.raises(DataError, match=r"p\.zarr.*damaged"):
            image.read(300, 300, 2, 2)


@pytest.mark.parametrize("suffix", [".png", ".npz", ".bmp"])
def test_other_formats_are_decoded_whole(suffix: str, tmp_path: Path) -> None:
    values, path = samples(20, 30, 3), tmp_path / f"p{suffix}"
    if suffix == ".npz":
        np.savez(path, values)
    else:
        Image.fromarray(values).save(path)
    require_windows_of(path, values)


@pytest.mark.parametrize("window", [(-1, 0, 2, 2), (0, -1, 2, 2), (0, 0, 0, 2), (19, 0, 2, 2), (0, 29, 1, 2)])
def test_windows_outside_are_refused(window: tuple[int, int, int, int], tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", samples(20, 30))
    with open_large(tmp_path / "p.npy") as image, pytest.raises(UsageError, match="does not lie inside"):
        image.read(*window)


def test_is_large_reads_headers_only(tmp_path: Path) -> None:
    values = samples(90, 100)
    tifffile.imwrite(tmp_path / "p.tif", values)
    np.save(tmp_path / "p.npy", values)
    Image.fromarray(values).save(tmp_path / "p.png")
    zarr.create_array(tmp_path / "p.zarr", data=values)
    for suffix in ("tif", "npy", "png", "zarr"):
        assert is_large(tmp_path / f"p.{suffix}", limit_pixels=8999)
        assert not is_large(tmp_path / f"p.{suffix}", limit_pixels=9000)
        assert not is_large(tmp_path / f"p.{suffix}")
    with pytest.raises(DataError, match="no file"):
        is_large(tmp_path / "absent.tif")


def test_without_zarr_its_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zarr.create_array(tmp_path / "p.zarr", data=samples(5, 6))
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(UsageError, match=r"p\.zarr.*pip install 'densemble\[zarr\]'"):
        open_large(tmp_path / "p.zarr")
