"""A prediction of a batch equals the predictions of its images, for all fields."""

import math
from dataclasses import fields

import pytest
import torch
from torch import Tensor

from densemble.ensemble.prediction import MAPS, Prediction

WITHOUT = {"two": "gives NaN"}


def batch(images: int, start: int = 0, **changes: object) -> Prediction:
    """Every map of image n holds n, and its set holds the classes above n."""
    number = torch.arange(start, start + images).float()
    maps = {
        name: number.view(-1, 1, 1, 1).expand(-1, 3, 2, 4)
        if traits.channels
        else number.view(-1, 1, 1).expand(-1, 2, 4)
        for name, traits in MAPS.items()
    }
    return Prediction(**{**maps, "included": maps["included"] > 1, **changes})


def same(result: Prediction, expected: Prediction) -> bool:
    pairs = [(getattr(result, name), getattr(expected, name)) for name in MAPS]
    return result.left_out == expected.left_out and all(a is b if b is None else torch.equal(a, b) for a, b in pairs)


def test_all_fields_except_left_out_are_maps() -> None:
    assert [field.name for field in fields(Prediction) if field.name not in MAPS] == ["left_out"]


def test_indexing_works_as_for_tensors() -> None:
    whole = batch(5)
    assert same(whole[3], batch(1, 3)) and same(whole[-1], batch(1, 4)) and same(whole[1:3], batch(2, 1))
    assert whole[torch.tensor([4, 0])].mean[:, 0, 0, 0].tolist() == whole[[4, 0]].mean[:, 0, 0, 0].tolist() == [4, 0]
    assert [image.mean.shape[0] for image in whole] == [1] * 5  # type: ignore[attr-defined]
    for index in (5, -6):
        with pytest.raises(IndexError):
            whole[index]


def test_concatenated_parts_equal_the_whole() -> None:
    assert same(Prediction.cat([batch(2), batch(1, 2), batch(2, 3)]), batch(5))
    assert same(Prediction.cat(list(batch(3))), batch(3))  # type: ignore[attr-defined]
    plain = batch(3, variance=None, entropy=None, left_out=None)
    assert same(Prediction.cat([plain[:1], plain[1:]]), plain)


def test_an_image_without_a_guarantee_has_all_classes_and_an_unbounded_interval() -> None:
    void = {"included": None, "lower": None, "upper": None, "left_out": (WITHOUT,)}
    result = Prediction.cat([batch(1), batch(1, 1, **void)])
    assert result.left_out == ({}, WITHOUT)
    assert result.included is not None and result.included.dtype == torch.bool and result.included[1].all()
    assert not result.included[0].any()
    assert (result.lower is not None and result.upper is not None
            and (float(result.lower[1].max()), float(result.upper[1].min())) == (-math.inf, math.inf))  # fmt: skip
    assert same(result[0], batch(1)) and same(result[1], batch(1, 1, **void)) and same(result[:], result)
    assert same(Prediction.cat([result[1], result[1]]), batch(2, 1, **{**void, "left_out": (WITHOUT,) * 2})[[0, 0]])


def test_a_function_of_all_maps_leaves_absent_ones_absent() -> None:
    seen: list[Tensor] = []
    result = batch(2, variance=None).only({"entropy", "variance"}).map(lambda maps: seen.append(maps) or maps + 1)
    assert set(result.maps()) == {"mean", "entropy"} and len(seen) == 2
    assert torch.equal(result.mean, batch(2).mean + 1) and result.left_out is None
