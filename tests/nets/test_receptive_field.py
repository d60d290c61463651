"""Receptive fields against the support of the gradient of one feature pixel."""

import pytest
import torch
from sampled import sampled
from torch import nn

import densemble as de
from densemble.nets.backbones import build_classifier
from densemble.nets.cut import Cut
from densemble.nets.receptive_field import Interval
from densemble.nets.truncate import truncate

SIZE = (224, 256)
# Network, and a node whose field lies inside the image at its centre.
NODES = [
    ("alexnet", "features.4"),
    ("vgg11_bn", "features.21"),
    ("resnet18", "layer3"),
    ("resnet50", "layer2"),
    ("squeezenet1_1", "features.7"),
    ("inception_v3", "Mixed_5b"),
    ("googlenet", "inception3b"),
    ("densenet121", "features.transition1.pool"),
    ("mobilenet_v2", "features.6"),
    ("timm/tf_efficientnet_lite0", "blocks.2"),
    ("timm/resnet26d", "layer2.1.act3"),
    ("resdeconv", "stages.1"),
]


def made_positive(network: nn.Module) -> None:
    """Make all weights positive and normalizations the identity, so that no part of the gradient vanishes."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.reset_running_stats()
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1.0 / module.weight[0].numel())
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def support(name: str, cut: Cut, pixel: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """First and last row and column with a gradient, over several images: max pooling picks one of many pixels."""
    classifier = build_classifier(name, in_channels=4)  # without the pointwise RGB conversion of InceptionV3
    made_positive(classifier)
    backbone = truncate(classifier, cut.kind, [cut.graph_node], [cut.layout], SIZE).eval()
    seen = torch.zeros(SIZE)
    for seed in range(6):
        # Images that grow towards each of the corners: each side of each pooling window is the maximum in some image.
        rows = torch.linspace(0, 1, SIZE[0])[:, None] * (-1 if seed & 1 else 1)
        columns = torch.linspace(0, 1, SIZE[1])[None] * (-1 if seed & 2 else 1)
        images = (2 + rows + columns + 0.01 * torch.rand(SIZE, generator=torch.Generator().manual_seed(seed))).double()
        images = images.expand(1, 3, *SIZE).clone().requires_grad_(True)
        (result,) = backbone.double()(images)
        result[0, :, pixel[0], pixel[1]].sum().backward()
        assert images.grad is not None
        seen += images.grad.abs().sum((0, 1)).float()
    rows, columns = seen.sum(1).nonzero().flatten(), seen.sum(0).nonzero().flatten()
    return (int(rows[0]), int(rows[-1])), (int(columns[0]), int(columns[-1]))


@pytest.mark.parametrize(("name", "node"), sampled(NODES, [NODES[i] for i in (0,)]))
def test_the_field_is_the_support_of_the_gradient(name: str, node: str) -> None:
    cut = {c.node: c for c in de.cuts(name, SIZE)}[node]
    assert cut.receptive_field is not None and cut.offset is not None
    step = [round(value) for value in (SIZE[0] / cut.height, SIZE[1] / cut.width)]
    if name == "inception_v3":
        step = [8, 8]  # unpadded convolutions: 224 / 25 is 9
    pixel = (cut.height // 2, cut.width // 2)
    expected = []
    for axis in (0, 1):
        centre = cut.offset[axis] + pixel[axis] * step[axis]
        half = (cut.receptive_field[axis] - 1) / 2
        expected.append((max(int(centre - half), 0), min(int(centre + half), SIZE[axis] - 1)))
    assert list(support(name, cut, pixel)) == expected
    assert expected[0][0] > 0 or expected[1][0] > 0 or name in ("resnet50",)


def test_by_hand() -> None:
    """A 7x7 convolution of stride 2 and padding 3, then 3x3 pooling of stride 2 and padding 1 (ResNet's start)."""
    first = Interval(0, 0, 1).window(7, 2, 3)
    assert first == Interval(-3, 3, 2)
    assert first.window(3, 2, 1) == Interval(-5, 5, 4)
    result = {c.node: c for c in de.cuts("resnet18", SIZE)}
    assert result["conv1"].receptive_field == (7, 7) and result["conv1"].offset == (0, 0)
    assert result["maxpool"].receptive_field == (11, 11) and result["maxpool"].offset == (0, 0)


@pytest.mark.parametrize(
    "name", sampled(["mobilenet_v3_small", "vit_b_16", "swin_t"], ["mobilenet_v3_small", "swin_t"])
)
def test_global_operations_have_no_receptive_field(name: str) -> None:
    """Squeeze-and-excitation and attention use the whole map."""
    assert de.cuts(name, SIZE)[-1].receptive_field is None
