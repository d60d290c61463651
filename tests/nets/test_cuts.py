"""Cuts against torchvision's feature extraction, operations computed by hand, and the rules of the automatic cut."""

import resource
from itertools import pairwise

import pytest
import torch
from sampled import sampled
from torchvision.models import get_model
from torchvision.models.feature_extraction import create_feature_extractor

import densemble as de
from densemble.errors import CutError, UsageError
from densemble.nets.automatic_cut import Limits, choose
from densemble.nets.cuts import all_nodes

STORY = ["alexnet", "densenet201", "inception_v3", "resnet152", "squeezenet1_1", "vgg19_bn"]


def test_alexnet_by_hand() -> None:
    """The first two convolutions at 240x320: 11x11 stride 4 padding 2, then pooling, then 5x5 padding 2."""
    result = {cut.node: cut for cut in de.cuts("alexnet", (240, 320))}
    first, second = result["features.0"], result["features.3"]
    assert (first.channels, first.size, first.stride) == (64, (59, 79), (240 / 59, 320 / 79))
    assert first.macs == 59 * 79 * 64 * 3 * 11 * 11
    assert second.size == (29, 39)
    assert second.macs == first.macs + 29 * 39 * 192 * 64 * 5 * 5
    assert result["features.12"].size == (6, 9)


@pytest.mark.parametrize(
    "name", sampled(["squeezenet1_1", "densenet121", "resnet18", "googlenet"], ["squeezenet1_1", "resnet18"])
)
def test_measured_shapes_equal_those_of_torchvision(name: str) -> None:
    options = {"init_weights": False, "transform_input": True} if name == "googlenet" else {}
    cuts = list(de.cuts(name, (96, 129)))
    assert len(cuts) > 5
    nodes = [cut.graph_node for cut in cuts]
    extractor = create_feature_extractor(get_model(name, weights=None, **options).eval(), nodes)
    with torch.no_grad():
        shapes = {node: tuple(out.shape) for node, out in extractor(torch.zeros(1, 3, 96, 129)).items()}
    assert shapes == {cut.graph_node: (1, cut.channels, cut.height, cut.width) for cut in cuts}
    assert all(a.macs <= b.macs for a, b in pairwise(cuts))


@pytest.mark.parametrize(
    "name",
    sampled(
        [*STORY, "resdeconv", "timm/tf_efficientnet_lite0"], ["alexnet", "squeezenet1_1", "inception_v3", "resdeconv"]
    ),
)
@pytest.mark.parametrize(("head", "stride"), [("fpn", 32), ("upsample", 16)])
def test_auto_is_the_deepest_cut_that_the_stride_permits(name: str, head: str, stride: int) -> None:
    nodes = all_nodes(name, (240, 320))
    cut = choose(nodes, "auto", Limits().for_head(head, (240, 320), (48, 64)), name)
    # Unpadded convolutions remove a pixel or two.
    assert cut.separates and cut.height >= 240 // stride - 2 and cut.width >= 320 // stride - 2
    deeper = [c for c in nodes[nodes.index(cut) + 1 :] if c.separates]
    assert all(c.height < 0.75 * 240 / stride for c in deeper)
    assert "deepest of" in cut.why and f"a stride of at most {stride}" in cut.why


def test_no_cut_at_class_scores_or_dropout() -> None:
    """The classifier of SqueezeNet is a dropout and a convolution on the last map."""
    deepest = de.cuts("squeezenet1_1", (240, 320))[-1]
    assert (deepest.node, deepest.channels) == ("features", 512)
    assert not [cut.node for cut in all_nodes("squeezenet1_1", (240, 320)) if cut.node.startswith("classifier")]


def test_a_small_map_may_be_cut_deeper() -> None:
    assert [Limits().for_head("fpn", (240, 320), size).max_stride for size in ((48, 64), None)] == [32, 32]
    assert Limits().for_head("upsample", (240, 320), (48, 64)).max_stride == 16
    small = Limits().for_head("upsample", (240, 320), (7, 10))
    assert small.max_stride == 32
    assert choose(all_nodes("resnet18", (240, 320)), "auto", small, "resnet18").node == "layer4"


def test_nothing_is_cut_inside_a_residual_or_dense_block() -> None:
    resnet = {cut.node for cut in de.cuts("resnet18", (96, 128))}
    assert {"layer1", "layer2", "layer3", "layer4"} <= resnet
    assert not any("conv2" in node and not node.startswith("conv") for node in resnet)
    dense = {cut.node for cut in de.cuts("densenet121", (96, 128))}
    assert {"features.denseblock1", "features.transition1.pool", "features.denseblock4"} <= dense
    assert not any("denselayer" in node and "denseblock" in node and node.count(".") > 2 for node in dense)


def test_a_cut_that_does_not_exist_names_those_that_fit() -> None:
    with pytest.raises(CutError, match=r"no node 'features\.99'; did you mean 'features\..*cuts that fit: .*'features"):
        de.DenseModel("alexnet", cut="features.99", weights=None)


def test_a_cut_that_is_too_small_names_those_that_fit() -> None:
    with pytest.raises(
        CutError, match=r"6x9.*the limits are a map of at least 24x32.*deepest.*'features\.4' \(192 channels"
    ):
        de.DenseModel("alexnet", cut="features.12", weights=None, min_size=(24, 32))
    with pytest.raises(CutError, match=r"\d+ MMACs, but the limits are at most 100 MMACs; the deepest .* is none"):
        de.DenseModel("alexnet", cut="features.8", weights=None, max_macs=1e8)
    for limit in ({}, {"min_size": (6, 8)}):
        assert de.DenseModel("alexnet", cut="features.12", weights=None, **limit).cut.node == "features.12"


def test_a_misspelt_node_gives_a_suggestion() -> None:
    with pytest.raises(CutError, match=r"no node 'layr3'; did you mean 'layer3'"):
        de.DenseModel("resnet18", cut="layr3", weights=None)


@pytest.mark.slow
def test_stages_of_a_transformer_and_the_largest_map_if_none_is_large_enough() -> None:
    result = de.cuts("vit_b_32", (256, 320))
    assert [cut.size for cut in result] == [(8, 10)] * 12 and {cut.kind for cut in result} == {"stages"}
    model = de.DenseModel("vit_b_32", weights=None, input_size=(256, 320), head="upsample")
    assert model.cut.node == result[-1].node
    assert "with the largest map, 8x10; no node has a stride of at most 16" in model.cut.why
    with pytest.raises(CutError, match="vit_b_32 at 256x320 has no node with a stride of at most 16; take a"):
        de.DenseModel("vit_b_32", weights=None, input_size=(256, 320), max_stride=16)


def test_no_cut_fits_a_small_input() -> None:
    with pytest.raises(CutError, match="larger input"):
        de.DenseModel("alexnet", input_size=(64, 64), weights=None, min_size=(24, 32))


def test_limits_of_the_automatic_cut() -> None:
    """ResNet-18 at 240x320 by hand: conv1 is 120*160*64*3*49 multiply-accumulates; each stage halves the map."""
    stem = 120 * 160 * 64 * 3 * 49
    layer1 = stem + 4 * 60 * 80 * 64 * 64 * 9
    layer2 = layer1 + 30 * 40 * 128 * (64 * 9 + 3 * 128 * 9 + 64)
    result = all_nodes("resnet18", (240, 320))

    def auto(**given: float) -> de.Cut:
        return choose(result, "auto", Limits(**given), "resnet18")

    assert auto().node == "layer4"
    assert auto(max_stride=8).node == "layer2" and auto(max_stride=8).macs == layer2
    assert auto(max_macs=layer1).node == "layer1" and auto(max_macs=layer1 - 1).node != "layer1"
    assert auto(max_stride=16, max_macs=layer2).why == (
        f"the deepest of {len([c for c in result if c.separates and c.macs <= layer2])} nodes "
        f"with a stride of at most 16 and at most {layer2 / 1e6:,.0f} MMACs"
    )
    with pytest.raises(CutError, match="resnet18 at 240x320 has no node with at most 0 MMACs; take a larger max_macs"):
        auto(max_macs=10)


def test_a_table_for_terminal_and_notebook() -> None:
    result = de.cuts("alexnet", (240, 320))
    assert "features.12" in str(result) and "256" in str(result)
    assert str(result[:3]).count("\n") == 3
    html = result._repr_html_()
    assert html.count("<tr>") == len(result) + 1 and "features.12" in html


def test_measuring_allocates_no_weights() -> None:
    """convnext_large has 198 million parameters, 0.8 GB, which are not allocated."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(de.cuts("convnext_large", (64, 64))) > 10
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 300e6


def test_a_network_whose_constructor_computes_with_tensors() -> None:
    result = {cut.node: cut for cut in de.cuts("regnet_y_400mf", (64, 96))}
    assert result["trunk_output.block4.block4-5.activation"].size == (2, 3)


def test_names() -> None:
    assert "resnet152" in de.backbones("res*") and "resdeconv" in de.backbones("res*")
    assert "timm/tf_efficientnet_lite0" in de.backbones("timm/*lite0")
    with pytest.raises(UsageError, match="did you mean 'alexnet'"):
        de.cuts("alexnte")
