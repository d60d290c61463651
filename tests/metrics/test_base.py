"""Properties of every metric family, tested with means of pixels."""

import pickle

import pytest
import torch
from torch import Tensor

from densemble.metrics import Metric, Objective, ScoredImage, SegmentationMetrics
from densemble.metrics.metric import columns, counted, mean, root_mean, true_indices


class Means(Metric):
    """``mean root fine per_channel`` of the pixels that the target marks; counts how often statistics are computed."""

    def __init__(self) -> None:
        self.looks = 0
        super().__init__(
            Objective("mean", True, self._total, mean),
            Objective("root", False, self._total, root_mean),
            Objective("fine", True, self._rounded, mean, streamed=self._total),
            per_class=(Objective("per_channel", True, self._channels, mean),),
        )

    def _marked(self, image: ScoredImage) -> Tensor:
        self.looks += 1
        return image.maps[:, :, image.target.bool()]

    def _total(self, image: ScoredImage) -> Tensor:
        marked = image.once(self._marked)
        return counted(marked.sum((1, 2)), marked[0].numel())

    def _rounded(self, image: ScoredImage) -> Tensor:
        marked = image.once(self._marked)
        return counted(marked.round().sum((1, 2)), marked[0].numel())

    def _channels(self, image: ScoredImage) -> Tensor:
        marked = image.once(self._marked)
        count = torch.full(marked.shape[:2], float(marked.shape[2]))
        return torch.stack([marked.sum(2), count], dim=-1).double()


MAPS = torch.tensor([[[1.0, 3.5]], [[2.0, 2.0]]])


def test_a_family_streams_its_metrics() -> None:
    metric = Means()
    assert set(metric.compute().values()) == {None} and metric.sums("mean") is None
    metric.update(MAPS, torch.tensor([[1, 1]]))
    metric.update(MAPS, torch.tensor([[0, 1]]))
    total = 1 + 3.5 + 2 + 2 + 3.5 + 2  # 4 values of the first image, 2 of the second
    assert metric.compute() == {
        "mean": pytest.approx(total / 6),
        "root": pytest.approx((total / 6) ** 0.5),
        "fine": pytest.approx(total / 6),  # streamed, so not rounded
        "per_channel": [pytest.approx(8 / 3), pytest.approx(2)],
    }
    assert metric.sums("root").tolist() == [total, 6]  # type: ignore[union-attr]
    assert metric.looks == 2


def test_statistics_have_one_row_per_candidate() -> None:
    fine = Means().objectives["fine"]
    rows = fine.statistics(ScoredImage(torch.stack([MAPS, MAPS + 1]), torch.tensor([[1, 1]])))
    assert rows.tolist() == [[9, 4], [12, 4]]  # 3.5 and 4.5 are rounded to 4
    assert "per_channel" not in Means().objectives


def test_undefined_is_none_and_what_is_not_finite_is_nan() -> None:
    metric = Means()
    metric.update(MAPS, torch.tensor([[0, 0]]))
    assert metric.compute() == {"mean": None, "root": None, "fine": None, "per_channel": [None, None]}
    metric.update(MAPS * torch.nan, torch.tensor([[1, 0]]))
    assert all(value != value for value in metric.compute()["per_channel"])  # type: ignore[union-attr]
    assert metric.compute()["mean"] != metric.compute()["mean"]


def test_an_accumulator_survives_a_copy_to_another_process() -> None:
    metric = SegmentationMetrics(2, 255)
    metric.update(torch.tensor([[[0.9, 0.2]], [[0.1, 0.8]]]), torch.tensor([[0, 0]]))
    copied = pickle.loads(pickle.dumps(metric))
    for accumulator in (metric, copied):
        accumulator.update(torch.tensor([[[0.3]], [[0.7]]]), torch.tensor([[1]]))
    assert copied.compute() == metric.compute()
    assert copied.compute()["pixel_accuracy"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_columns_are_those_of_the_mask(share: float) -> None:
    values, mask = torch.rand(3, 40), torch.rand(40) < share
    assert columns(values, true_indices(mask)).equal(values[:, mask])
