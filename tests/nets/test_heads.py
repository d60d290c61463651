"""Heads: all heads on twelve backbones (the full table is benchmarks/every_head.py), and properties of each head."""

from itertools import pairwise, product

import pytest
import torch
import torch.nn.functional as F
from compare_peers import WORKS
from every_head import BACKBONES, outcomes
from sampled import sampled
from torch import nn

import densemble as de
from densemble.nets.automatic_cut import Limits, choose
from densemble.nets.backbones import build_classifier
from densemble.nets.cuts import all_nodes, levels
from densemble.nets.heads import HEADS
from densemble.nets.heads.layers import resize
from densemble.nets.heads.smp import DECODERS
from densemble.nets.heads.subpixel import SubpixelStep
from densemble.nets.truncate import truncate

BUILT_IN = [head for head in HEADS if not head.startswith("smp-")]
LIGHT = [
    "resnet18", "squeezenet1_1", "inception_v3", "mobilenet_v3_small", "timm/vit_tiny_patch16_224",
    "timm/convnext_atto", "resdeconv", "timm/tf_efficientnet_lite0",
]  # fmt: skip


@pytest.mark.parametrize(
    ("head", "backbone"), sampled(list(product(BUILT_IN, BACKBONES)), list(zip(BUILT_IN, LIGHT, strict=False))[::5])
)
def test_any_head_over_any_backbone(head: str, backbone: str) -> None:
    """One pixel, odd sizes, a larger size; benchmarks/every_head.py covers the other combinations."""
    result = [
        *outcomes(backbone, head, [(1, 1), (225, 301)], [None]),
        *outcomes(backbone, head, [(7, 5), (97, 131)], [(48, 64)]),
    ]
    assert {outcome for _, _, outcome in result} == {WORKS}


@pytest.mark.parametrize(
    ("decoder", "backbone"),
    sampled(
        list(product(DECODERS, ["inception_v3", "alexnet", "timm/mobilenetv3_small_050", "timm/vit_tiny_patch16_224"])),
        [("unet", "inception_v3")],
    ),
)
def test_smp_decoders_on_backbones_without_smp_encoder(decoder: str, backbone: str) -> None:
    result = list(outcomes(backbone, f"smp-{decoder}", [(1, 1), (97, 131)], [None]))
    assert {outcome for _, _, outcome in result} == {WORKS}


def test_the_decoder_of_dpt_needs_no_class_tokens() -> None:
    maps = [torch.rand(1, 8, 2 * 2**level, 3 * 2**level, requires_grad=True) for level in range(4)]
    head = HEADS["smp-dpt"].make((8, 8, 8, 8), 2, 1)
    result = head(maps, (32, 48))
    result.square().sum().backward()
    assert result.shape == (1, 2, 32, 48)
    assert all(one.grad is not None and one.grad.abs().sum() > 0 for one in maps[:3])  # the largest is unused


def test_maps_that_are_off_by_a_pixel_are_aligned() -> None:
    """The unpadded convolutions of InceptionV3 give maps that are not exact halves of each other."""
    model = de.DenseModel("inception_v3", head="skip", weights=None, min_size=(6, 8), out_size=None).eval()
    sizes = [tuple(result.shape[-2:]) for result in model.features(torch.rand(1, 3, 225, 301))]
    assert len(sizes) >= 4 and any(b[0] != 2 * a[0] for a, b in pairwise(sizes))
    assert model(torch.rand(1, 3, 225, 301)).shape == (1, 1, 225, 301)


@pytest.mark.parametrize(
    "name",
    sampled(
        ["alexnet", "vgg19_bn", "densenet201", "squeezenet1_1", "inception_v3", "googlenet"],
        ["alexnet", "squeezenet1_1", "googlenet"],
    ),
)
def test_levels_of_networks_where_fastai_has_none(name: str) -> None:
    result = all_nodes(name, (240, 320))
    deepest = choose(result, "auto", Limits(), name)
    chain = levels(result, deepest, (240, 320))
    assert chain[0] == deepest and len(chain) >= 3
    heights = [cut.height for cut in chain]
    assert heights == sorted(set(heights)) and heights[-1] >= 240 // 4 - 2
    assert all(cut.separates for cut in chain)
    assert [cut.macs for cut in chain] == sorted((cut.macs for cut in chain), reverse=True)


@pytest.mark.parametrize(
    "name",
    sampled(
        ["alexnet", "vgg11", "resnet18", "densenet121", "squeezenet1_1", "googlenet", "mobilenet_v2",
         "shufflenet_v2_x1_0", "timm/tf_efficientnet_lite0", "timm/resnetv2_50", "timm/dla34", "timm/inception_v4",
         "timm/regnety_002"],
        ["resnet18"],
    ),
)  # fmt: skip
def test_a_level_is_not_overwritten_by_what_runs_after_it(name: str) -> None:
    """In-place activations would change an earlier returned map; the reference is each level computed alone."""
    size = (96, 128)
    result = all_nodes(name, size)
    chain = levels(result, choose(result, "auto", Limits(), name), size)
    x = torch.rand(1, 3, *size)

    def maps(nodes: list[de.Cut]) -> list[torch.Tensor]:
        torch.manual_seed(0)
        whole = build_classifier(name)
        with torch.no_grad():
            return truncate(whole, "graph", [c.graph_node for c in nodes], [c.layout for c in nodes], size).eval()(x)

    assert len(chain) >= 3
    for level, together in zip(chain, maps(chain), strict=True):
        torch.testing.assert_close(together, maps([level])[0], rtol=0, atol=0)


@pytest.mark.parametrize("operation", ["module", "function", "method"])
def test_a_level_that_the_network_overwrites_is_kept(operation: str) -> None:
    class Overwriting(nn.Module):
        """The first map is used twice, once after an in-place operation; it is the last separating map of its size."""

        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 4, 3, 2, 1)
            self.relu = nn.ReLU(inplace=True)
            self.left, self.right = nn.Conv2d(4, 8, 3, 2, 1), nn.Conv2d(4, 8, 3, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            if operation == "module":
                y = self.relu(x)
            elif operation == "function":
                y = F.relu(x, inplace=True)
            else:
                y = x.relu_()
            return self.left(x) + self.right(y)

    net = Overwriting().eval()
    x = torch.rand(1, 3, 96, 128)
    model = de.DenseModel(net, head="skip", out_size=None, mean=(0.0,) * 3, std=(1.0,) * 3).eval()
    with torch.no_grad():
        deepest, larger = model.backbone(x)
        torch.testing.assert_close(deepest, net(x), rtol=0, atol=0)
        torch.testing.assert_close(larger, net.first(x), rtol=0, atol=0)


def test_levels_stop_at_the_output_size() -> None:
    result = all_nodes("resnet18", (192, 256))
    deepest = choose(result, "auto", Limits(), "resnet18")
    assert [cut.size for cut in levels(result, deepest, (48, 64))] == [(6, 8), (12, 16), (24, 32), (48, 64)]
    assert [cut.size for cut in levels(result, deepest, (20, 20))] == [(6, 8), (12, 16), (24, 32)]
    # AlexNet's 47x63 is as good as 48x64
    alexnet = all_nodes("alexnet", (192, 256))
    assert levels(alexnet, choose(alexnet, "auto", Limits(), "alexnet"), (48, 64))[-1].size == (47, 63)


@pytest.mark.slow
def test_doublings_by_hand() -> None:
    def doublings(name: str, head: str, out_size: tuple[int, int] | None, **limits: object) -> int:
        return de.DenseModel(name, head=head, weights=None, out_size=out_size, **limits).spec.doublings  # type: ignore[arg-type]

    assert doublings("resnet18", "upsample", (48, 64)) == 2  # 15x20, 30x40, 60x80 at most: the step stops at 48x64
    assert doublings("resnet18", "upsample", None) == 2  # to a quarter of 240x320
    assert doublings("resnet18", "skip", (48, 64)) == 0  # its levels reach 60x80
    assert doublings("alexnet", "upsample", (48, 64), min_size=(40, 50)) == 0  # 59x79
    assert doublings("vit_b_16", "skip", (48, 64)) == 2  # all of its maps are 15x20


def test_a_skip_head_sees_every_level() -> None:
    model = de.DenseModel("resnet18", head="skip", weights=None, min_size=(6, 8), input_size=(192, 256)).train()
    maps = [m.detach().requires_grad_(True) for m in model.features(torch.rand(2, 3, 192, 256))]
    model.head(maps, (48, 64)).square().sum().backward()
    assert len(maps) == 4 and all(m.grad is not None and m.grad.abs().sum() > 0 for m in maps)


def test_subpixel_starts_without_a_checkerboard() -> None:
    """Shi et al. 2016 with ICNR: at the start every 2x2 block holds one value, as after nearest upsampling."""
    result = SubpixelStep(8, 4).eval()(torch.randn(1, 8, 6, 7), (12, 14))
    torch.testing.assert_close(result, result[..., ::2, ::2].repeat_interleave(2, -1).repeat_interleave(2, -2))


@pytest.mark.parametrize("head", ["aspp", "ppm"])
def test_context_reaches_the_whole_map(head: str) -> None:
    """A change in one corner changes the opposite corner; a head of 3x3 convolutions does not reach that far."""

    def reaches(name: str) -> bool:
        torch.manual_seed(0)
        net = HEADS[name].make((16,), 1, 1).eval()
        x = torch.rand(1, 16, 40, 40)
        other = x.clone()
        other[..., 0, 0] += 10
        change = (net([x], (80, 80)) - net([other], (80, 80))).abs()
        return bool(change[..., -1, -1] > 0)

    assert reaches(head) and not reaches("upsample")


def test_rows_say_which_heads_use_several_maps() -> None:
    several = {name for name, head in HEADS.items() if head.multi_level}
    assert several == {"fpn", "skip", *(f"smp-{decoder}" for decoder in DECODERS)}


def test_resize_leaves_a_map_of_the_right_size_alone() -> None:
    x = torch.rand(1, 2, 5, 7)
    assert resize(x, (5, 7)) is x
