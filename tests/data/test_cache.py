"""The decoded cache: complete or absent, shared by all processes, keyed by content, in the bit depth of the images."""

import os
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from densemble.data import decoded_cache as module
from densemble.data.decoded_cache import decode_split, unit
from densemble.data.folder import FolderData
from densemble.errors import DataError, ResourceError

SIZE = (24, 32)


def write_pair(folder: Path, stem: str, image: np.ndarray, target: np.ndarray) -> None:
    for kind, pixels in (("images", image), ("targets", target)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        name = folder / kind / stem
        deep_colours = pixels.ndim == 3 and pixels.dtype != np.uint8
        if deep_colours or pixels.dtype.kind == "f":
            tifffile.imwrite(name.with_suffix(".tif"), pixels, photometric="minisblack", planarconfig="contig")
        else:
            Image.fromarray(pixels).save(name.with_suffix(".png"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2)):
        for number in range(count):
            image = random.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
            write_pair(
                tmp_path / "data" / split, f"{split}{number}", image, random.integers(0, 3, SIZE, dtype=np.uint8)
            )
    return tmp_path / "data"


def decode(folder: Path, cache: Path) -> tuple[str, int]:
    split = decode_split(FolderData(folder, "segmentation"), "train", SIZE, cache)
    return str(Path(split.images.filename).parent), int(split.images.sum(dtype=np.int64))  # type: ignore[attr-defined]


@pytest.mark.slow
def test_concurrent_processes_share_one_complete_cache(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        folders = {future.result() for future in [pool.submit(decode, folder, cache) for _ in range(4)]}
    assert len(folders) == 1 and folders == {decode(folder, cache)}
    assert [path.name for path in cache.iterdir()] == [Path(next(iter(folders))[0]).name]


def test_a_truncated_cache_is_decoded_again(folder: Path, tmp_path: Path) -> None:
    path, total = decode(folder, tmp_path / "cache")
    images = Path(path) / "images.npy"
    images.write_bytes(images.read_bytes()[:100])
    assert decode(folder, tmp_path / "cache") == (path, total)


def test_the_key_is_the_content_not_the_date(folder: Path, tmp_path: Path) -> None:
    path, _ = decode(folder, tmp_path / "cache")
    image = folder / "train" / "images" / "train0.png"
    os.utime(image, (1, 1))
    assert decode(folder, tmp_path / "cache")[0] == path
    module._digest.cache_clear()
    pixels = np.asarray(Image.open(image)).copy()
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(image)
    assert decode(folder, tmp_path / "cache")[0] != path


def test_reading_settings_change_the_key(folder: Path, tmp_path: Path) -> None:
    path, _ = decode(folder, tmp_path / "cache")
    other = FolderData(folder, "segmentation", label_map={2: 1})
    mapped = decode_split(other, "train", SIZE, tmp_path / "cache")
    assert str(Path(mapped.images.filename).parent) != path  # type: ignore[attr-defined]
    assert set(np.unique(mapped.targets)) == {0, 1}


def test_a_pickled_split_opens_the_same_file(folder: Path, tmp_path: Path) -> None:
    split = decode_split(FolderData(folder, "segmentation"), "train", SIZE, tmp_path / "cache")
    packed = pickle.dumps(split)
    assert len(packed) < 2000, "the pixels were pickled"
    again = pickle.loads(packed)
    assert again.stems == split.stems and np.array_equal(again.images, split.images)


def test_sixteen_bit_colours_stay_sixteen_bit_and_eight_bit_ones_join_them(folder: Path, tmp_path: Path) -> None:
    deep = np.random.default_rng(1).integers(0, 65536, (*SIZE, 3), dtype=np.uint16)
    write_pair(folder / "train", "deep", deep, np.zeros(SIZE, np.uint8))
    data = FolderData(folder, "segmentation", classes=["a", "b", "c"])
    split = decode_split(data, "train", SIZE, tmp_path / "cache")
    assert split.images.dtype == np.uint16
    assert np.array_equal(split.images[split.stems.index("deep")], deep.transpose(2, 0, 1))
    plain = data.read_image(next(s for s in data.train if s.stem == "train1"))
    kept = unit(split.images[split.stems.index("train1")])
    torch.testing.assert_close(kept, torch.from_numpy(plain).permute(2, 0, 1).float() / 255)


def test_float_images_of_five_bands(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for number in range(2):
            bands = random.uniform(0, 4000, (*SIZE, 5)).astype(np.float32)
            write_pair(
                tmp_path / "data" / split, f"{split}{number}", bands, random.integers(0, 2, SIZE, dtype=np.uint8)
            )
    data = FolderData(tmp_path / "data", "segmentation", image_range=(0, 4000), bands=[4, 0])
    split = decode_split(data, "train", SIZE, tmp_path / "cache")
    assert split.images.shape == (2, 2, *SIZE) and split.images.dtype == np.float32
    raw = tifffile.imread(tmp_path / "data" / "train" / "images" / "train0.tif")
    np.testing.assert_allclose(split.images[0, 0], raw[..., 4] / 4000, rtol=1e-5)
    with pytest.raises(DataError, match=r"image_range"):
        decode_split(FolderData(tmp_path / "data", "segmentation"), "train", SIZE, tmp_path / "cache")


def test_a_folder_that_cannot_be_written(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ResourceError, match=r"cache_dir"):
        decode_split(FolderData(folder, "segmentation"), "train", SIZE, tmp_path / "file" / "cache")


def test_a_range_of_sixteen_bit_images_is_the_same_in_training_and_scoring(folder: Path, tmp_path: Path) -> None:
    for split in ("train", "val"):
        for path in (folder / split / "images").iterdir():
            deep = np.asarray(Image.open(path))[..., 0].astype(np.uint16) * 16
            Image.fromarray(deep).save(path)
    data = FolderData(folder, "segmentation", image_range=(0, 4095))
    split = decode_split(data, "train", SIZE, tmp_path / "cache")
    decoded = unit(split.images[0])
    assert 0.3 < float(decoded.mean()) < 0.7
    torch.testing.assert_close(decoded, torch.from_numpy(data.unit_image(data.train[0])).permute(2, 0, 1))
