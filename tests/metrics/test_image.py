"""Image metrics against scikit-image."""

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from densemble.metrics import ImageMetrics

NAN = float("nan")
OPTIONS = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1, "channel_axis": 0}


def pair(channels: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    target = torch.rand(channels, height, width)
    return (target + 0.2 * torch.randn(channels, height, width)).clamp(0, 1), target


@pytest.mark.parametrize("channels", [1, 3])
def test_means_over_images_agree_with_scikit_image(channels: int) -> None:
    metric = ImageMetrics()
    pairs = [pair(channels, *size) for size in ((20, 31), (11, 11), (40, 17))]
    for p, t in pairs:
        metric.update(p, t)
    result = metric.compute()
    arrays = [(p.double().numpy(), t.double().numpy()) for p, t in pairs]
    ratios = [peak_signal_noise_ratio(t, p, data_range=1) for p, t in arrays]
    assert result["psnr"] == pytest.approx(np.mean(ratios), abs=1e-4)
    assert result["ssim"] == pytest.approx(
        np.mean([structural_similarity(p, t, **OPTIONS) for p, t in arrays]), abs=1e-4
    )
    assert result["mae"] == pytest.approx(np.mean([np.abs(p - t).mean() for p, t in arrays]), abs=1e-6)


def test_invalid_pixels_count_nowhere_nor_does_a_window_that_touches_one() -> None:
    p, t = pair(1, 24, 30)
    _, full = structural_similarity(p.double().numpy(), t.double().numpy(), full=True, **OPTIONS)
    holed = t.clone()
    holed[:, :, :8] = NAN
    metric = ImageMetrics()
    metric.update(p, holed)
    result = metric.compute()
    assert result["ssim"] == pytest.approx(full[0, 5:-5, 8 + 5 : -5].mean(), abs=1e-4)
    p, t = p[:, :, 8:], t[:, :, 8:]
    assert result["psnr"] == pytest.approx(peak_signal_noise_ratio(t.numpy(), p.numpy(), data_range=1), abs=1e-4)


def test_an_exact_prediction_has_a_finite_score() -> None:
    metric = ImageMetrics()
    _, t = pair(3, 16, 16)
    metric.update(t, t)
    assert metric.compute() == {"psnr": pytest.approx(100), "ssim": pytest.approx(1), "mae": 0}


def test_an_image_without_a_valid_pixel_is_not_counted() -> None:
    metric = ImageMetrics()
    metric.update(torch.rand(1, 16, 16), torch.full((1, 16, 16), NAN))
    assert set(metric.compute().values()) == {None}
