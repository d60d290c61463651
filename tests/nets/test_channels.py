"""Images with other channels than RGB: widened filters against the RGB network."""

from itertools import product

import pytest
import torch
from sampled import sampled

import densemble as de
from densemble.nets.channels import cycled, projection, widened
from densemble.nets.dense import DenseSpec

# Convolution first; depthwise or separable stems; RGB shifted inside; RGB handed on to a second branch; patches.
NETWORKS = [
    "alexnet",
    "resnet18",
    "inception_v3",
    "squeezenet1_1",
    "timm/tf_efficientnet_lite0",
    "timm/mobilenetv3_small_050",
    "timm/vit_tiny_patch16_224",
    "timm/crossvit_9_240",
    "timm/focalnet_tiny_srf",
    "vit_b_32",
    "swin_t",
]
EACH_KIND = [
    ("alexnet", 1),
    ("timm/tf_efficientnet_lite0", 13),
    ("timm/vit_tiny_patch16_224", 4),
]


@pytest.mark.parametrize(("name", "channels"), sampled(list(product(NETWORKS, [1, 2, 4, 13])), EACH_KIND))
def test_any_number_of_channels(name: str, channels: int) -> None:
    model = de.DenseModel(name, weights=None, in_channels=channels, out_channels=2, out_size=(24, 32)).eval()
    with torch.no_grad():
        assert model(torch.rand(1, channels, 64, 96)).shape == (1, 2, 24, 32)
    assert model.mean.numel() == model.std.numel() == channels


def test_a_grey_image_gives_the_same_as_its_rgb_copy() -> None:
    grey_model = de.DenseModel("resnet18", weights=None, in_channels=1, mean=(0.0,), std=(1.0,)).eval()
    rgb_model = de.DenseModel("resnet18", weights=None, mean=(0.0,) * 3, std=(1.0,) * 3).eval()
    state = rgb_model.state_dict()
    for key in ("mean", "std"):
        state[key] = grey_model.state_dict()[key]
    state["backbone.network.conv1.weight"] = state["backbone.network.conv1.weight"].sum(1, keepdim=True)
    grey_model.load_state_dict(state)
    x = torch.rand(2, 1, 96, 128)
    with torch.no_grad():
        torch.testing.assert_close(grey_model(x), rgb_model(x.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)


def test_filters_by_hand() -> None:
    weight = torch.arange(3.0).view(1, 3, 1, 1) + 1  # R 1, G 2, B 3
    assert widened(weight, 1).flatten().tolist() == [6]
    assert widened(weight, 2).flatten().tolist() == [1.5, 3]
    assert widened(weight, 4).flatten().tolist() == [0.75, 1.5, 2.25, 0.75]
    assert widened(weight, 6).sum() == weight.sum()  # the same value in every channel gives the same response
    assert cycled((1.0, 2.0, 6.0), 1) == (3.0,)
    assert cycled((1.0, 2.0, 6.0), 4) == (1.0, 2.0, 6.0, 1.0)


@pytest.mark.parametrize("channels", [1, 2, 4, 13])
def test_a_projection_starts_as_means(channels: int) -> None:
    layer = projection(channels)
    torch.testing.assert_close(layer.weight.sum(1).flatten(), torch.ones(3))
    assert layer(torch.full((1, channels, 2, 2), 0.3)).detach().allclose(torch.tensor(0.3))


@pytest.mark.parametrize("name", sampled(["resnet18", "timm/crossvit_9_240"], ["resnet18"]))
def test_a_spec_builds_the_adapted_network_again(name: str) -> None:
    model = de.DenseModel(name, weights=None, in_channels=4).eval()
    again = de.DenseModel.from_spec(DenseSpec.from_dict(model.spec.as_dict()))
    again.load_state_dict(model.state_dict())
    x = torch.rand(1, 4, 70, 90)
    with torch.no_grad():
        assert torch.equal(again(x), model(x))


def test_pretrained_weights_are_loaded_before_they_are_widened(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from safetensors.torch import save_file
    from torchvision.models import resnet18

    whole = resnet18(weights=None)
    save_file(whole.state_dict(), tmp_path / "torchvision-resnet18.safetensors")
    model = de.DenseModel("resnet18", in_channels=4, weights_dir=tmp_path)
    actual = model.backbone.network.get_parameter("conv1.weight")
    torch.testing.assert_close(actual[:, :3], whole.conv1.weight * 0.75)
    torch.testing.assert_close(actual[:, 3], whole.conv1.weight[:, 0] * 0.75)
    assert "loaded" in model.loaded and model.spec.stem == ("conv1",)
