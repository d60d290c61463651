"""Halos: tiles against the whole map, and measured halos against the receptive field computed by layers."""

import math
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from sampled import sampled
from torch import Tensor, nn

import densemble as de
from densemble.nets.halo import MOST_WORK, REFERENCE_TILE, Halo, measure_reach
from densemble.nets.rewrite import for_inference

# Backbone, node, head, of which tiles are exact.
EXACT = [
    ("resnet18", "layer1", "upsample"),
    ("resnet18", "layer2", "fpn"),
    ("resnet18", "layer1", "skip"),
    ("resnet18", "layer1", "subpixel"),
    ("vgg11_bn", "features.21", "upsample"),
    ("mobilenet_v2", "features.6", "upsample"),
    ("resdeconv", "stages.1", "deconv"),
]


def make(backbone: str, node: str, head: str) -> de.DenseModel:
    return de.DenseModel(backbone, weights=None, out_channels=2, out_size=None, cut=node, head=head).eval()


@torch.no_grad()
def made_lively(model: de.DenseModel) -> de.DenseModel:
    """Set normalization statistics to those of a random batch, so that maps vary between pixels in a deep network."""
    normalizations = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for module in normalizations:
        module.momentum = 1.0
        module.bias.normal_(0, 0.5)
    model.train()(torch.rand(2, 3, 128, 128))
    for convolution in (m for m in model.head.modules() if isinstance(m, nn.Conv2d)):
        convolution.weight.mul_(3)
    return model.eval()


@cache
def measured(backbone: str, node: str, head: str) -> tuple[de.DenseModel, Halo]:
    model = made_lively(make(backbone, node, head))
    halo = measure_reach(model).halo
    assert halo is not None and halo.work(REFERENCE_TILE) <= MOST_WORK
    return model, halo


@torch.no_grad()
def test_nan_passes_every_operation() -> None:
    """A NaN reaches exactly the rows whose window contains it."""
    images = torch.rand(2, 16, 32, 48)
    images[:, :, 16:] = float("nan")
    pointwise = [F.relu, F.relu6, F.hardswish, F.hardsigmoid, F.hardtanh, F.silu, F.gelu, F.elu, F.leaky_relu]
    pointwise += [nn.BatchNorm2d(16).eval(), nn.Conv2d(16, 32, 1), nn.ReLU(inplace=True), nn.Hardswish(inplace=True)]
    first_rows = [
        *((operation, 16) for operation in pointwise),
        (lambda x: F.max_pool2d(x, 3, 2, 1), 8),
        (lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True), 7),
        (lambda x: F.avg_pool2d(x, 3, 2, 1), 8),
        (nn.Conv2d(16, 64, 3, padding=1), 15),
        (nn.Conv2d(16, 64, 3, padding=2, dilation=2), 14),
        (nn.Conv2d(16, 16, 3, padding=1, groups=16), 15),
        (nn.Conv2d(16, 16, 7, 2, 3), 7),
        (nn.ConvTranspose2d(16, 8, 4, 2, 1), 31),
        (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), 31),
        (lambda x: F.interpolate(x, size=(64, 96), mode="bilinear", antialias=True), 31),
    ]
    for memory_format in (torch.contiguous_format, torch.channels_last):
        for operation, first in first_rows:
            result = operation(images.clone(memory_format=memory_format)).isnan()
            assert result[:, :, first:].all() and not result[:, :, :first].any(), operation


def whole_and_tile(model: de.DenseModel, halo: Halo, fill: float) -> tuple[Tensor, Tensor]:
    """Logits of one part from the whole image and from a window; outside the window, the image is scaled by `fill`."""
    top, bottom, left, right = halo.pixels
    inner, step = 3 * halo.stride, halo.stride
    box = (slice(step, step + top + inner + bottom), slice(3 * step, 3 * step + left + inner + right))
    image = torch.rand(1, 3, box[0].stop + 8 * step, box[1].stop + 16 * step)
    window = image[..., box[0], box[1]].clone()
    image *= fill
    image[..., box[0], box[1]] = window
    with torch.no_grad():
        whole, part = model(image)[..., box[0], box[1]], model(window)
    kept = (..., slice(top, top + inner), slice(left, left + inner))
    return whole[kept], part[kept]


@pytest.mark.parametrize(
    ("backbone", "node", "head"), sampled(EXACT, [case for case in EXACT if case[0] != "vgg11_bn"][::4])
)
def test_a_tile_equals_the_whole_map_and_a_smaller_halo_does_not(backbone: str, node: str, head: str) -> None:
    model, halo = measured(backbone, node, head)
    whole, part = whole_and_tile(model, halo, fill=5)
    assert float(whole.std()) > 0.1
    torch.testing.assert_close(part, whole, rtol=1e-5, atol=1e-5 * float(whole.abs().max()))
    shorter = Halo(halo.stride, tuple(side - halo.stride for side in halo.pixels))  # type: ignore[arg-type]
    assert not whole_and_tile(model, halo, fill=math.nan)[0].isnan().any()
    assert whole_and_tile(model, shorter, fill=math.nan)[0].isnan().any()


@pytest.mark.parametrize(("backbone", "node", "head"), sampled(EXACT, EXACT[:4]))
def test_halo_covers_the_receptive_field_of_the_cut(backbone: str, node: str, head: str) -> None:
    """A feature pixel whose receptive field starts before the window is wrong, and so are the pixels that it covers."""
    model, halo = measured(backbone, node, head)
    cut = model.cut
    assert cut.receptive_field is not None and cut.offset is not None
    stride = int(cut.stride[0])
    assert halo.stride % stride == 0
    before = (cut.receptive_field[0] - 1) / 2 - cut.offset[0]
    after = cut.offset[0] + (cut.receptive_field[0] - 1) / 2 - (stride - 1)
    assert halo.pixels[0] >= math.ceil(before / stride) * stride
    assert halo.pixels[1] >= math.ceil(after / stride) * stride


def test_halo_by_hand() -> None:
    """Feature i of ResNet18's layer1 depends on 4i - 21 to 4i + 21, and after the head's 3x3 convolution 4 pixels more.

    Resizing, pixel y sees the features i = floor((y + 0.5) / 4 - 0.5) and i + 1. At the top 4i - 25 < 0 up to i = 6,
    y = 29: 30 pixels see beyond the window; at the bottom, counted back from its end, 4 (i + 1) + 25 >= 0 from i = -7,
    y = -26 on.
    """
    assert measured("resnet18", "layer1", "upsample")[1] == Halo(4, (32, 28, 32, 28))
    assert Halo(8, (104, 96, 104, 96)).work(1024) == pytest.approx((1224 / 1024) ** 2)
    assert Halo(8, (8, 16, 32, 24)).symmetric() == Halo(8, (32, 32, 32, 32))


class Shift(nn.Module):
    """A classifier whose pixels depend only on ``ahead`` pixels below and to the right."""

    def __init__(self, ahead: int) -> None:
        super().__init__()
        self.look = nn.Conv2d(3, 8, ahead + 1, padding=ahead)
        self.ahead = ahead
        self.stop = nn.Conv2d(8, 8, 1)
        self.pool, self.classify = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stop(self.look(x)[:, :, self.ahead :, self.ahead :])
        return self.classify(self.pool(x).flatten(1))


def test_a_one_sided_receptive_field_gives_a_one_sided_halo() -> None:
    torch.manual_seed(1)
    model = de.DenseModel(Shift(5), out_channels=1, out_size=None, cut="stop", head="upsample").eval()
    with torch.no_grad():
        nn.init.dirac_(model.head.first[0].weight)  # a convolution of 3x3 that is zero around its centre: NaN sees it
    halo = measure_reach(model).halo
    assert halo == Halo(1, (1, 6, 1, 6))


@pytest.mark.parametrize(
    ("backbone", "options", "reason"),
    [
        ("resnet18", {"cut": "layer2", "head": "ppm"}, "or on the whole image"),
        *(
            pytest.param(name, options, "or on the whole image", marks=pytest.mark.slow)
            for name, options in (
                ("resnet18", {"cut": "layer2", "head": "aspp"}),
                ("mobilenet_v3_small", {"cut": "features.4", "head": "upsample"}),
                ("resnet18", {"cut": "layer4", "head": "upsample"}),
            )
        ),
        ("inception_v3", {"cut": "Conv2d_4a_3x3", "head": "upsample"}, "not an exact fraction"),
        ("resnet18", {"cut": "layer2", "input_size": (64, 64)}, "resizes the whole image"),
    ],
)
def test_networks_without_a_halo_give_the_reason(backbone: str, options: dict[str, object], reason: str) -> None:
    model = de.DenseModel(backbone, weights=None, out_size=None, **options)  # type: ignore[arg-type]
    reach = measure_reach(made_lively(model) if "inception" in backbone else model)
    assert reach.halo is None and reason in reach.why


@pytest.mark.slow
def test_a_halo_that_costs_too_much_is_rejected() -> None:
    model = made_lively(make("densenet121", "features.denseblock2", "upsample"))
    reach = measure_reach(model)
    assert reach.halo is None and ("times the work" in reach.why or "pixels away" in reach.why)


def test_a_map_of_fixed_size_has_no_halo() -> None:
    model = de.DenseModel("resnet18", weights=None, cut="layer1", out_size=(12, 16))
    assert "same size" in measure_reach(model).why


@pytest.mark.slow
def test_the_rewritten_model_has_the_same_halo_and_stays_in_its_mode() -> None:
    plain, halo = measured("vgg11_bn", "features.21", "upsample")
    lean = for_inference(plain).train()
    assert measure_reach(lean).halo == halo
    assert lean.training and not plain.training


def test_a_model_with_constant_maps_has_no_halo() -> None:
    """A constant map cannot verify a halo."""
    model = make("resnet18", "layer1", "upsample")
    with torch.no_grad():
        for parameter in model.head.logits.parameters():
            parameter.zero_()
    assert measure_reach(model).halo is None
