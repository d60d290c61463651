"""NPY and NPZ: which array is read, which axis is the channel, and invalid headers."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, floating_dtypes, integer_dtypes

from densemble.errors import DataError
from densemble.storage.images import Array, image_size, read_image, read_planes, read_values


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    values=st.one_of(integer_dtypes(), floating_dtypes()).flatmap(
        lambda dtype: arrays(dtype, array_shapes(min_dims=2, max_dims=2, max_side=6))
    ),
    columns_first=st.booleans(),
    compressed=st.booleans(),
)
def test_any_dtype_byte_order_and_memory_order(
    values: Array, columns_first: bool, compressed: bool, tmp_path: Path
) -> None:
    values = np.asfortranarray(values) if columns_first else values
    np.save(tmp_path / "m.npy", values)
    (np.savez_compressed if compressed else np.savez)(tmp_path / "m.npz", values)
    for name in ("m.npy", "m.npz"):
        np.testing.assert_array_equal(read_planes(tmp_path / name)[:, :, 0], values)
        assert image_size(tmp_path / name) == values.shape


@pytest.mark.parametrize(
    ("shape", "read_as"),
    [
        ((5, 6), (5, 6, 1)),
        ((5, 6, 3), (5, 6, 3)),
        ((5, 64, 63), (5, 64, 63)),  # the last axis is below 64
        ((5, 65, 64), (65, 64, 5)),
        ((64, 80, 90), (64, 80, 90)),  # the first axis is not below 64
        ((5, 5, 64), (5, 5, 64)),  # a hyperspectral 5x5
        ((1, 6, 7), (6, 7, 1)),
        ((1, 6, 3), (1, 6, 3)),
        ((1, 1, 6, 7), (6, 7, 1)),
    ],
)
def test_which_axis_is_the_channel(shape: tuple[int, ...], read_as: tuple[int, ...], tmp_path: Path) -> None:
    values = np.arange(np.prod(shape)).reshape(shape)
    np.save(tmp_path / "m.npy", values)
    planes = read_planes(tmp_path / "m.npy")
    assert planes.shape == read_as
    assert image_size(tmp_path / "m.npy") == read_as[:2]
    moved = values.reshape(shape[-3:]) if len(shape) > 2 else values[:, :, None]
    np.testing.assert_array_equal(planes, moved if moved.shape == read_as else moved.transpose(1, 2, 0))


@pytest.mark.parametrize(
    ("dtype", "read_as"),
    [("uint8", "uint8"), ("uint16", "uint16"), ("float16", "float32"), ("float64", "float32"), ("int64", "float32")],
)
def test_images_keep_their_depth(dtype: str, read_as: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 200, (5, 7, 4)).astype(dtype)
    np.save(tmp_path / "p.npy", values)
    np.save(tmp_path / "grey.npy", values[:, :, 0])
    assert read_image(tmp_path / "p.npy").dtype == read_as
    np.testing.assert_array_equal(read_image(tmp_path / "p.npy"), values)
    np.testing.assert_array_equal(read_image(tmp_path / "grey.npy"), values[:, :, :1].repeat(3, 2))


def test_booleans_are_black_and_white(tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", np.eye(4, dtype=bool))
    np.testing.assert_array_equal(read_image(tmp_path / "p.npy")[:, :, 1], np.eye(4) * 255)


def test_which_array_of_an_npz(tmp_path: Path) -> None:
    one, two = np.ones((3, 4), np.uint8), np.full((3, 4), 2, np.uint8)
    np.savez(tmp_path / "named.npz", image=one, target=two)
    assert read_image(tmp_path / "named.npz").max() == 1
    assert read_values(tmp_path / "named.npz").max() == 2
    np.savez(tmp_path / "plain.npz", one, two)
    assert read_image(tmp_path / "plain.npz").max() == read_values(tmp_path / "plain.npz").max() == 1
    np.savez(tmp_path / "odd.npz", left=one, right=two)
    with pytest.raises(DataError, match=r"odd\.npz' holds the arrays left, right; .* image or arr_0"):
        read_image(tmp_path / "odd.npz")


@pytest.mark.parametrize("values", [np.array([["a"]]), np.ones((2, 2), complex), np.array([[{}]]), np.zeros((0, 3))])
def test_arrays_that_are_no_image(values: Array, tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", values, allow_pickle=True)
    with pytest.raises(DataError, match=r"p\.npy"):
        read_image(tmp_path / "p.npy")


@pytest.mark.parametrize("shape", [b"(200000, 200000)", b"(30000, 30000)", b"(-2, -2)", b"(2, 3)", b"(2,"])
def test_a_lying_header_costs_nothing(shape: bytes, tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", np.zeros((2, 2)))
    lying = (tmp_path / "p.npy").read_bytes().replace(b"(2, 2)", shape)
    (tmp_path / "p.npy").write_bytes(lying)
    with zipfile.ZipFile(tmp_path / "p.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("arr_0.npy", lying)
    for name in ("p.npy", "p.npz"):
        for read in (read_image, image_size):
            with pytest.raises(DataError, match=name):
                read(tmp_path / name)


def test_a_zip_that_lies_about_its_size_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "p.npz", np.zeros((4, 4), np.uint8))
    with zipfile.ZipFile(tmp_path / "p.npz") as archive:
        size = archive.infolist()[0].file_size.to_bytes(4, "little")
    content = (tmp_path / "p.npz").read_bytes()
    (tmp_path / "p.npz").write_bytes(content.replace(size, (3 << 30).to_bytes(4, "little")))
    with pytest.raises(DataError, match=r"claims 3221225472 bytes in \d+ of its zip"):
        read_image(tmp_path / "p.npz")
