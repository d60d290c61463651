"""Images in every usual form and networks in every precision: correct maps, or an error that names valid input."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_networks import small_dense
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import densemble as de
from densemble.errors import UsageError

PIXELS = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
TENSOR = torch.from_numpy(PIXELS).movedim(-1, 0)


@pytest.fixture(scope="module")
def ensemble() -> de.Ensemble:
    return de.Ensemble([small_dense(0), small_dense(1)]).eval()


class Items(Dataset[Any]):
    def __init__(self, item: Any) -> None:
        self.item, self.read = item, 0

    def __len__(self) -> int:
        return 3

    def __getitem__(self, number: int) -> Any:
        self.read += 1
        return self.item


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter([(TENSOR, 1)] * 3)


LOADED = TensorDataset(torch.stack([TENSOR] * 3), torch.zeros(3))
SOURCES: dict[str, Any] = {
    "PIL": [Image.fromarray(PIXELS)] * 3,
    "list": [TENSOR, PIXELS, Image.fromarray(PIXELS)],
    "Dataset": Items(TENSOR),
    "Dataset of pairs": Items((PIXELS, "target")),
    "Dataset of PIL": Items((Image.fromarray(PIXELS), 3)),
    "IterableDataset": Stream(),
    "DataLoader": DataLoader(LOADED, batch_size=2),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_sources(kind: str, ensemble: de.Ensemble) -> None:
    (expected,) = de.predict(ensemble, PIXELS)
    result = list(de.predict(ensemble, SOURCES[kind]))
    assert [p.name for p in result] == ["0", "1", "2"]
    assert all(torch.equal(p.mean, expected.mean) for p in result)


def test_a_data_set_is_read_item_by_item(ensemble: de.Ensemble) -> None:
    items = Items(TENSOR)
    predictions = de.predict(ensemble, items)
    next(predictions)
    assert items.read == 1


def test_pil_images_are_read_as_their_files_are(ensemble: de.Ensemble, tmp_path: Path) -> None:
    for number, mode in enumerate(("L", "P", "RGBA", "CMYK")):
        Image.fromarray(PIXELS).convert(mode).save(path := tmp_path / f"{mode}.{'jpg' if mode == 'CMYK' else 'png'}")
        with Image.open(path) as image:
            (one,), (two,) = de.predict(ensemble, path), de.predict(ensemble, image)
        assert torch.equal(one.mean, two.mean), mode
        exif = Image.Exif()
        exif[274] = 2 * number + 2  # orientation
        Image.fromarray(PIXELS).save(path := tmp_path / f"{number}.jpg", exif=exif)
        with Image.open(path) as image:
            (one,), (two,) = de.predict(ensemble, path), de.predict(ensemble, image)
        assert one.mean.shape == two.mean.shape and torch.equal(one.mean, two.mean), exif[274]
    assert torch.equal(ensemble.predict(Image.fromarray(PIXELS)).mean, ensemble.predict(PIXELS).mean)
    both = ensemble.predict([Image.fromarray(PIXELS), TENSOR]).mean
    torch.testing.assert_close(both, ensemble.predict(np.stack([PIXELS] * 2)).mean)


BATCH = torch.rand(2, 3, 50, 60)
WRONG: dict[str, tuple[Callable[[de.Ensemble], Any], str]] = {
    "file object": (lambda own: own.predict(BytesIO(b"x")), "de.predict"),
    "path": (lambda own: own.predict("a.png"), "de.predict"),
    "Dataset": (lambda own: own.predict(Items(TENSOR)), "de.predict"),
    "16 bits": (lambda own: own.predict(Image.new("I;16", (9, 9))), "mode I;16"),
    "sizes": (lambda own: own.predict([TENSOR, TENSOR[:, 1:]]), "must have one size, got 50x60, 49x60"),
    "empty": (lambda own: own.predict(BATCH[:0]), "give at least one image"),
    "empty forward": (lambda own: own(BATCH[:0]), "give at least one image"),
    "empty list": (lambda own: own.predict([]), "give at least one"),
    "file object to de.predict": (lambda own: de.predict(own, BytesIO(b"x")), "PIL.Image.open"),
    "bytes": (lambda own: de.predict(own, b"x"), "a bytes is no image"),
    "dict": (lambda own: de.predict(own, {"a": TENSOR}), "a dict is no image"),
    "None": (lambda own: de.predict(own, None), "a NoneType is no image"),
    "strings": (lambda own: own.predict(np.array([["a"]])), "must be uint8"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_source_that_is_not_an_image_is_refused(kind: str, ensemble: de.Ensemble) -> None:
    run, said = WRONG[kind]
    with pytest.raises(UsageError, match=said):
        run(ensemble)


def test_no_images_give_no_predictions(ensemble: de.Ensemble) -> None:
    assert list(de.predict(ensemble, [])) == list(de.predict(ensemble, BATCH[:0])) == []


@pytest.mark.parametrize(("dtype", "drift"), [(torch.float16, 1e-3), (torch.bfloat16, 1e-2), (torch.float64, 1e-6)])
def test_other_precisions(dtype: torch.dtype, drift: float, ensemble: de.Ensemble) -> None:
    expected = ensemble.predict(BATCH).mean
    other = de.Ensemble([small_dense(0), small_dense(1)]).eval().to(dtype)
    with torch.no_grad():
        maps = [other(BATCH), other(BATCH.to(dtype)), other.predict(BATCH).mean]
    for result in maps:
        assert result.dtype == torch.float32
        torch.testing.assert_close(result, expected, rtol=0, atol=drift)
    for p, row in zip(de.predict(other, BATCH), de.predict(ensemble, BATCH), strict=True):
        torch.testing.assert_close(p.mean, row.mean, rtol=0, atol=drift)


class Broken(Items):
    def __getitem__(self, number: int) -> Any:
        if number == 1:
            raise OSError("truncated")
        return self.item


def test_an_item_that_cannot_be_read_does_not_end_the_others(ensemble: de.Ensemble) -> None:
    result = list(de.predict(ensemble, Broken(TENSOR)))
    assert [p.failed is None for p in result] == [True, False, True]
    assert "truncated" in str(result[1].failed)


def test_an_item_that_is_not_a_tensor_is_reported(ensemble: de.Ensemble) -> None:
    for wrong in (PIXELS, None):
        with pytest.raises(UsageError, match=r"must be a tensor \(B, C, H, W\)"):
            ensemble(wrong)
