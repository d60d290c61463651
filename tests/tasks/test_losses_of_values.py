"""Losses of values, points, images and saliency against the published formulas, numpy, scipy and scikit-image."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from skimage.metrics import structural_similarity
from torch import Tensor

from densemble.tasks import DepthTask, HeatmapTask, ImageTask, RegressionTask, SaliencyTask

SCALE = 1000.0


def depth() -> tuple[Tensor, Tensor, np.ndarray, np.ndarray]:
    """Logits, targets in millimetres with invalid ones, and the valid values of both in metres."""
    logits, target = torch.randn(2, 1, 6, 7), SCALE * (torch.rand(2, 6, 7) * 4 + 0.5)
    target[0, :2] = 0.0
    target[1, :, 3] = float("nan")
    valid = torch.isfinite(target) & (target > 0)
    return logits, target, F.softplus(logits.double())[:, 0][valid].numpy(), (target.double() / SCALE)[valid].numpy()


def regression_loss(name: str, logits: Tensor, target: Tensor) -> float:
    return float(DepthTask(SCALE, loss_name=name).loss(logits, target))


def test_absolute_and_squared_errors_are_means_in_units_of_the_scale() -> None:
    logits, target, p, t = depth()
    assert regression_loss("", logits, target) == pytest.approx(np.abs(p - t).mean(), rel=1e-5)
    assert regression_loss("l2", logits, target) == pytest.approx(((p - t) ** 2).mean(), rel=1e-5)


def test_scale_invariant_log_is_that_of_bts() -> None:
    logits, target, p, t = depth()
    d = np.log(p) - np.log(t)  # bts.py, silog_loss with variance_focus = 0.85
    reference = np.sqrt((d**2).mean() - 0.85 * (d.mean() ** 2))
    assert regression_loss("silog", logits, target) == pytest.approx(reference, rel=1e-5)


def test_scale_invariant_log_sees_only_part_of_a_wrong_scale() -> None:
    target = torch.rand(1, 5, 5) + 1
    logits = torch.log(torch.expm1(3 * target))[:, None]  # softplus gives three times the target
    result = RegressionTask(loss_name="silog").loss(logits, target)
    assert float(result) == pytest.approx(0.15**0.5 * np.log(3), rel=1e-4)


def test_scale_invariant_log_of_a_perfect_map_has_no_nan_in_its_gradient() -> None:
    target = torch.full((1, 3, 3), float(F.softplus(torch.tensor(0.7))))
    logits = torch.full((1, 1, 3, 3), 0.7, requires_grad=True)
    RegressionTask(loss_name="silog").loss(logits, target).backward()
    assert logits.grad is not None and torch.isfinite(logits.grad).all()


def test_reverse_huber_pixel_by_pixel() -> None:
    logits, target, p, t = depth()
    c = 0.2 * np.abs(p - t).max()
    losses = [e if e <= c else (e * e + c * c) / (2 * c) for e in np.abs(p - t)]
    assert regression_loss("berhu", logits, target) == pytest.approx(np.mean(losses), rel=1e-5)


def test_values_may_be_negative_where_all_are_valid() -> None:
    task, target = RegressionTask(2.0, None), torch.tensor([[[-4.0, 3.0]]])
    assert float(task.loss(torch.tensor([[[[-2.0, 1.5]]]]), target)) == 0
    assert RegressionTask(2.0).activation(torch.tensor(-50.0)) >= 0


def keypoints() -> tuple[Tensor, Tensor]:
    rows, columns = torch.arange(9)[:, None], torch.arange(12)
    blobs = [torch.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 4.0) for y, x in ((2, 3), (6, 8), (4, 1))]
    return torch.randn(1, 2, 9, 12), torch.stack([torch.maximum(blobs[0], blobs[1]), blobs[2]])[None]


def test_focal_of_keypoints_is_centernets() -> None:
    logits, target = keypoints()
    pred, gt = torch.sigmoid(logits.double()), target.double()
    pos, neg = gt.eq(1).double(), gt.lt(1).double()  # CenterNet, models/losses.py, _neg_loss
    positive = (torch.log(pred) * torch.pow(1 - pred, 2) * pos).sum()
    negative = (torch.log(1 - pred) * torch.pow(pred, 2) * torch.pow(1 - gt, 4) * neg).sum()
    reference = -(positive + negative) / pos.sum()
    assert float(HeatmapTask(("a", "b"), loss_name="focal").loss(logits, target)) == pytest.approx(float(reference))


def test_focal_takes_a_peak_below_one_for_a_point_and_an_empty_map_for_none() -> None:
    task, (_, target) = HeatmapTask(("a", "b"), loss_name="focal"), keypoints()
    logits = torch.zeros(1, 2, 9, 12, requires_grad=True)
    task.loss(logits, 0.8 * target).backward()
    assert logits.grad is not None
    rises = (logits.grad < 0).nonzero().tolist()
    assert rises == [[0, 0, 2, 3], [0, 0, 6, 8], [0, 1, 4, 1]]
    quiet = task.loss(torch.zeros(1, 2, 9, 12), torch.zeros(1, 2, 9, 12))
    assert float(quiet) == pytest.approx(2 * 9 * 12 * 0.25 * np.log(2), rel=1e-5)


def test_other_losses_of_keypoints_are_torchs() -> None:
    logits, target = keypoints()
    result = HeatmapTask(("a", "b"), loss_name="mse+bce").loss(logits, target)
    reference = F.mse_loss(torch.sigmoid(logits), target) + F.binary_cross_entropy(torch.sigmoid(logits), target)
    torch.testing.assert_close(result, reference)


def test_a_density_sums_to_the_typical_count_at_any_size_and_its_losses_are_in_that_unit() -> None:
    one = float(torch.log(torch.expm1(torch.tensor(1.0))))  # softplus(one) = 1
    for size in ((4, 5), (8, 10)):
        logits, target = torch.full((1, 1, *size), one), torch.zeros(1, 1, *size)
        target[..., 0, 0] = 30.0
        pixels = size[0] * size[1]
        task = HeatmapTask(("a",), "density", 20.0)
        assert float(task.activation(logits).sum()) == pytest.approx(20)
        high = 30 * pixels / 20  # the target's one pixel in units of the typical density
        losses = {"mse": ((pixels - 1) + (high - 1) ** 2) / pixels, "l1": ((pixels - 1) + (high - 1)) / pixels}
        for name, expected in {**losses, "count": 0.5}.items():
            result = HeatmapTask(("a",), "density", 20.0, name).loss(logits, target)
            assert float(result) == pytest.approx(expected, rel=1e-5), name


def test_structural_dissimilarity_is_scikit_images() -> None:
    logits, target = torch.randn(2, 3, 20, 25), torch.rand(2, 3, 20, 25)
    reference = np.mean(
        [
            structural_similarity(
                p.numpy(),
                t.numpy(),
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
                data_range=1,
                channel_axis=0,
            )
            for p, t in zip(torch.sigmoid(logits).double(), target.double(), strict=True)
        ]
    )
    assert float(ImageTask(loss_name="ssim").loss(logits, target)) == pytest.approx(1 - reference, abs=1e-5)


def test_structural_dissimilarity_of_a_map_smaller_than_its_window() -> None:
    target = torch.rand(1, 1, 6, 4)
    task = ImageTask(1, "ssim")
    assert float(task.loss(torch.logit(target), target)) == pytest.approx(0, abs=1e-5)
    assert task.loss(-torch.logit(target), target) > 0.5


def test_saliency_losses_against_scipy() -> None:
    logits, target = torch.randn(2, 1, 5, 6), torch.rand(2, 5, 6)
    target[1] = 0  # is left out by the losses of distributions
    p, q = torch.sigmoid(logits[0, 0]).flatten().numpy(), target[0].flatten().numpy()
    expected = {
        "kld": stats.entropy(q, p),
        "cc": 1 - stats.pearsonr(p, q).statistic,
        "bce": F.binary_cross_entropy(torch.sigmoid(logits[:, 0]), target).item(),
    }
    for name, value in expected.items():
        assert float(SaliencyTask(name).loss(logits, target)) == pytest.approx(value, abs=1e-5), name
    assert float(SaliencyTask().loss(logits, target)) == pytest.approx(sum(expected.values()), abs=1e-5)
    assert float(SaliencyTask("mse").loss(logits, target)) == pytest.approx(
        float(((torch.sigmoid(logits[:, 0]) - target) ** 2).mean())
    )
