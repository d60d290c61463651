"""The rewritten network against the plain one: the same map, fewer operations."""

import pytest
import torch
import torch.nn.functional as F
from sampled import sampled
from torch import nn

import densemble as de
from densemble.config import SEVEN
from densemble.nets.counting import count_macs
from densemble.nets.heads import HEADS
from densemble.nets.heads.layers import ResizeConvolution
from densemble.nets.rewrite import for_inference

SIZE = (192, 256)


def with_lived_statistics(model: de.DenseModel) -> de.DenseModel:
    """Set batch normalization as after training; with initial statistics, folding would be trivial."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.1)
    return model.eval()


def relative_error(result: torch.Tensor, expected: torch.Tensor) -> float:
    return float((result - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("size", [(24, 32), (17, 29), (9, 12), (13, 11), (40, 7)])
@pytest.mark.parametrize("skip_channels", [0, 5])
def test_resize_then_convolve_is_what_torch_computes(size: tuple[int, int], skip_channels: int) -> None:
    layer = ResizeConvolution(7 + skip_channels, 3).double()
    x = torch.randn(2, 7, 9, 12, dtype=torch.float64)
    other = torch.randn(2, skip_channels, *size, dtype=torch.float64) if skip_channels else None
    resized = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
    expected = F.conv2d(resized if other is None else torch.cat([resized, other], 1), layer.weight, padding=1)
    torch.testing.assert_close(layer(x, size, other), expected)


@pytest.mark.parametrize(
    "name",
    sampled(
        [*SEVEN, "timm/tf_efficientnet_lite0"],
        ["resdeconv", "timm/tf_efficientnet_lite0"],
    ),
)
def test_the_rewritten_model_gives_the_same_map(name: str) -> None:
    """Double precision: in single precision, rounding errors of 150 folded layers are as large as the tolerance."""
    model = with_lived_statistics(de.DenseModel(name, weights=None, min_size=(12, 16), head="skip")).double()
    x = torch.rand(1, 3, *SIZE, dtype=torch.float64)
    with torch.no_grad():
        expected = model(x)
        assert relative_error(for_inference(model)(x), expected) <= 1e-10
        assert relative_error(for_inference(model).float()(x.float()).double(), expected) <= 1e-4
        torch.testing.assert_close(model(x), expected, rtol=0, atol=0)  # the plain form is left as it was
    empty = de.DenseModel.from_spec(model.spec, "meta")
    assert count_macs(for_inference(empty), SIZE, "meta") <= count_macs(empty, SIZE, "meta")


@pytest.mark.parametrize(
    "head", sampled(list(HEADS), [name for name in HEADS if not name.startswith("smp-") or name == "smp-fpn"])
)
def test_every_head_gives_the_same_map(head: str) -> None:
    model = with_lived_statistics(de.DenseModel("squeezenet1_1", weights=None, min_size=(6, 8), head=head))
    x = torch.rand(2, 3, 131, 97)
    with torch.no_grad():
        assert relative_error(for_inference(model)(x), model(x)) <= 1e-5


@pytest.mark.parametrize(
    "name",
    sampled(
        ["resnet18", "densenet121", "mobilenet_v2", "timm/tf_efficientnet_lite0", "resdeconv"],
        ["resnet18", "timm/tf_efficientnet_lite0", "resdeconv"],
    ),
)
def test_normalization_after_a_convolution_is_removed(name: str) -> None:
    model = de.DenseModel(name, weights=None, min_size=(12, 16))

    def count(net: nn.Module) -> int:
        return sum(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in net.modules())

    left = count(for_inference(model))
    assert left < count(model)
    if name != "densenet121":  # normalizes before it convolves
        assert left == 0


@pytest.mark.parametrize("head", ["skip", "upsample"])
def test_logits_are_computed_before_the_last_resize(head: str) -> None:
    """A 1x1 convolution commutes with bilinear resizing."""
    model = de.DenseModel("resnet18", weights=None, out_channels=11, out_size=None, head=head).eval()
    seen: list[torch.Tensor] = []
    hook = model.head.logits.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    x = torch.rand(1, 3, 97, 131)
    with torch.no_grad():
        result = model(x)
        hook.remove()
        upsampled = F.interpolate(seen[0], size=(97, 131), mode="bilinear", align_corners=False)
        assert relative_error(result, model.head.logits(upsampled)) <= 1e-5
    assert upsampled[0, 0].numel() > 3.5 * seen[0][0, 0].numel()
