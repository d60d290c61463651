"""Combination of stacked and streamed maps, of all and of some members, against numpy and torch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ensemble.combining import some_maps
from scipy.stats import entropy
from torch import Tensor

from densemble.ensemble.calibrate import Temperature, VarianceScaling
from densemble.ensemble.combination import Combination
from densemble.ensemble.guarantee import ConformalInterval, ConformalSet
from densemble.ensemble.uncertainty import RunningUncertainty
from densemble.errors import ArtifactError, UsageError
from densemble.tasks import RegressionTask, SegmentationTask

SEGMENTATION, DEPTH = SegmentationTask(("a", "b", "c")), RegressionTask()
WEIGHTS = {"one": 2.0, "two": 1.0, "three": 5.0}
SIZE = (15, 20)


def resized(maps: Tensor) -> Tensor:
    return F.interpolate(maps, size=SIZE, mode="bilinear", align_corners=False)


def test_stacked_and_streamed_maps_give_the_same_and_running_sums_get_each_member() -> None:
    maps, combination = some_maps(DEPTH), Combination(DEPTH, WEIGHTS)
    running = RunningUncertainty("none")
    combined = combination.combine(maps, running)
    expected = np.average(maps.numpy(), axis=0, weights=list(WEIGHTS.values()))
    np.testing.assert_allclose(combined, expected, rtol=1e-5)
    variance = np.average((maps.numpy() - expected) ** 2, axis=0, weights=list(WEIGHTS.values()))
    np.testing.assert_allclose(running.variance(), variance, rtol=1e-4, atol=1e-6)
    names = ["three", "one", "two"]  # members may come in any order
    streamed = combination.combine((name, maps[list(WEIGHTS).index(name)]) for name in names)
    torch.testing.assert_close(streamed, combined)


def test_some_members_keep_their_weights_and_fitted_parameters() -> None:
    maps, table = some_maps(SEGMENTATION), torch.tensor([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]])
    guarantee = ConformalSet(0.3, 0.1, 20)
    whole = Combination(SEGMENTATION, WEIGHTS, "class_weights", {"class_weights": table}, guarantee=guarantee)
    assert whole.keep(list(WEIGHTS)).guarantee == guarantee
    some = whole.keep(["three", "one"])
    assert some.weights == {"one": 2.0, "three": 5.0} and some.guarantee is None
    assert torch.equal(some.fitted["class_weights"], table[[0, 2]])
    streamed = whole.combine((name, maps[position]) for position, name in enumerate(WEIGHTS) if name != "two")
    assert torch.equal(some.combine(maps[[0, 2]]), streamed)
    shares = torch.einsum("mk,mbkhw->bkhw", table[[0, 2]], maps[[0, 2]]) / table[[0, 2]].sum(0)[:, None, None]
    torch.testing.assert_close(streamed, shares / shares.sum(1, keepdim=True))
    kernel = {"kernel": torch.ones(3, 3, 3), "bias": torch.zeros(3)}
    with pytest.raises(ArtifactError, match="'stacking' was fitted for all members"):
        Combination(SEGMENTATION, WEIGHTS, "stacking", kernel).keep(["one", "two"])


def test_a_prediction_at_another_size_is_computed_from_resized_maps() -> None:
    maps, shares = some_maps(SEGMENTATION), torch.tensor(list(WEIGHTS.values())) / 8
    combination = Combination(SEGMENTATION, WEIGHTS, calibration=Temperature(2.0, "categorical"))
    mean = torch.einsum("m,mbkhw->bkhw", shares, maps)
    calibrated = mean.sqrt() / mean.sqrt().sum(1, keepdim=True)
    sized = torch.stack([resized(member_maps) for member_maps in maps])
    expected = np.einsum("m,mbhw->bhw", shares.numpy(), entropy(sized.numpy(), axis=2))
    alone, served = combination.predict(maps, size=SIZE), combination.predict_at(maps, SIZE)
    torch.testing.assert_close(alone.mean, calibrated)
    torch.testing.assert_close(served.mean, resized(calibrated))
    for prediction in (alone, served):
        np.testing.assert_allclose(prediction.expected_entropy, expected, rtol=1e-4)
        np.testing.assert_allclose(prediction.entropy, entropy(prediction.mean.numpy(), axis=1), rtol=1e-4)
        assert prediction.label is not None and torch.equal(prediction.label, prediction.mean.argmax(1))


def test_intervals_follow_the_variance_before_its_calibration() -> None:
    maps, guarantee = some_maps(DEPTH), ConformalInterval(1.5, 0.05, 0.1, 20)
    combination = Combination(DEPTH, WEIGHTS, calibration=VarianceScaling(3.0, 0.5), guarantee=guarantee)
    running = RunningUncertainty("none")
    mean = combination.combine(maps, running)
    result = combination.predict(maps, uncertainty={"variance"})
    torch.testing.assert_close(result.variance, 3 * running.variance() + 0.5)
    lower, upper = guarantee.apply(torch.cat([mean, running.variance()], 1))
    torch.testing.assert_close(result.lower, lower)
    torch.testing.assert_close(result.upper, upper)


@pytest.mark.parametrize("shape", [(2, 2, 3, 4, 5), (3, 3, 4, 5)])
def test_stacked_maps_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="a weight for each"):
        Combination(SEGMENTATION, WEIGHTS).combine(torch.rand(shape))
