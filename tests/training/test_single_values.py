"""A batch of one image whose feature map has one pixel is trained with running statistics."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from small_networks import small_dense
from small_training import SETTINGS, member_folder, replace
from torch import nn

from densemble.data.decoded_cache import DecodedSplit
from densemble.engines.measuring import measure_steps
from densemble.tasks import SaliencyTask
from densemble.training.fit import fit_member
from densemble.training.settings import MemberFit
from densemble.training.single_values import normalize_single_values

Splits = tuple[DecodedSplit, DecodedSplit]


def first_of(split: DecodedSplit, count: int) -> DecodedSplit:
    return DecodedSplit(split.images[:count], split.targets[:count], split.stems[:count])


@pytest.mark.parametrize(("images", "batch_size"), [(2, 1), (1, 8)])
def test_a_head_that_pools_to_one_pixel_trains_on_single_images(
    images: int, batch_size: int, splits: Splits, tmp_path: Path
) -> None:
    pytest.importorskip("segmentation_models_pytorch")
    model, folder = small_dense(head="smp-pan"), member_folder(tmp_path)
    folder.path.mkdir(parents=True)
    train, val = (first_of(split, images) for split in splits)
    settings = replace(SETTINGS, epochs=1, batch_size=batch_size)
    before = {name: value.clone() for name, value in model.named_parameters()}
    fitted = fit_member(MemberFit(model, SaliencyTask(), settings, train, val, (12, 16), folder, "one", tmp_path))
    assert fitted["epochs"] == 1 and -1 <= fitted["best"]["val_cc"] <= 1
    assert any(not torch.equal(before[name], value) for name, value in model.named_parameters())


@pytest.mark.parametrize("head", ["smp-deeplabv3plus", "smp-pan"])
def test_pooling_heads_train_on_a_single_image(head: str) -> None:
    pytest.importorskip("segmentation_models_pytorch")
    model = small_dense(head=head).train()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        model(torch.rand(1, 3, 48, 64))
    normalize_single_values(model)
    assert model(torch.rand(1, 3, 48, 64)).isfinite().all()


def test_the_cost_with_single_values_is_measured(splits: Splits, tmp_path: Path) -> None:
    pytest.importorskip("segmentation_models_pytorch")
    ticks = iter(range(100))
    settings = replace(SETTINGS, batch_size=1)
    model, folder = small_dense(head="smp-pan"), member_folder(tmp_path)
    fit = MemberFit(model, SaliencyTask(), settings, *splits, (12, 16), folder, "one", tmp_path)
    times = measure_steps(fit, lambda: float(next(ticks)))
    assert times.batch == 1


def test_only_single_values_use_running_statistics() -> None:
    torch.manual_seed(0)
    layer = nn.BatchNorm2d(3)
    layer.running_mean, layer.running_var = torch.rand(3), torch.rand(3) + 0.5
    plain = nn.BatchNorm2d(3)
    plain.load_state_dict(layer.state_dict())
    normalize_single_values(layer)
    normalize_single_values(layer)
    single = torch.rand(1, 3, 1, 1)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        plain(single)
    expected = F.batch_norm(single, layer.running_mean, layer.running_var, layer.weight, layer.bias, training=False)
    torch.testing.assert_close(layer(single), expected)
    assert layer.training and layer.num_batches_tracked == 0
    for batch in (torch.rand(1, 3, 2, 1), torch.rand(2, 3, 1, 1)):
        torch.testing.assert_close(layer(batch), plain(batch))
    torch.testing.assert_close(layer.running_mean, plain.running_mean)
    layer.eval()(single)
    assert not layer.training
