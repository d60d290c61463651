"""Blocks of networks with different layer names."""

import pytest

from densemble.nets.backbones import build_classifier
from densemble.nets.blocks import block_of, blocks


@pytest.mark.parametrize(
    ("parameter", "block"),
    [
        ("features.4.weight", "features.4"),
        ("layer3.4.conv1.weight", "layer3.4"),
        ("conv1.weight", "conv1"),
        ("features.denseblock2.denselayer7.conv2.weight", "features.denseblock2.denselayer7"),
        ("Mixed_5b.branch3x3dbl_1.conv.weight", "Mixed_5b"),
        ("encoder.layers.encoder_layer_3.mlp.0.weight", "encoder.layers.encoder_layer_3"),
        ("class_token", ""),
    ],
)
def test_block_of(parameter: str, block: str) -> None:
    assert block_of(parameter) == block


@pytest.mark.parametrize("name", ["resnet18", "vgg11", "timm/tf_efficientnet_lite0", "timm/vit_tiny_patch16_224"])
def test_every_parameter_lies_in_one_block(name: str) -> None:
    network = build_classifier(name, "meta")
    result = blocks(network)
    listed = [id(p) for group in result.values() for p in group]
    assert len(listed) == len(set(listed)) and set(listed) == {id(p) for p in network.parameters()}
    assert len(result) >= 8
