"""DenseModel: exact output sizes, no unused layers, the same features as the whole classifier."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from sampled import sampled
from torchvision.models import alexnet, inception_v3

import densemble as de
from densemble.errors import UsageError
from densemble.nets.backbones import normalization
from densemble.nets.dense import DenseSpec
from densemble.nets.heads import HEADS


# Sizes that are not halves of the image; test_heads.py tests other sizes.
@pytest.mark.parametrize("head", sampled(list(HEADS), set(HEADS) - {"smp-unetplusplus", "smp-upernet", "smp-dpt"}))
def test_heads_hit_the_size_exactly(head: str) -> None:
    model = de.DenseModel("squeezenet1_1", out_channels=3, out_size=(33, 50), head=head, weights=None, min_size=(4, 4))
    with torch.no_grad():
        logits = model.eval()(torch.rand(2, 3, 96, 128))
    assert logits.shape == (2, 3, 33, 50) and torch.isfinite(logits).all()


@pytest.mark.parametrize("name", ["alexnet", "resnet18", "squeezenet1_1", "timm/tf_efficientnet_lite0", "resdeconv"])
def test_every_parameter_is_used_by_the_output(name: str) -> None:
    """Layers after the cut are removed: a parameter without a gradient would be one of them."""
    model = de.DenseModel(name, weights=None, min_size=(12, 16)).train()
    model(torch.rand(2, 3, 96, 128)).sum().backward()
    assert [key for key, p in model.named_parameters() if p.grad is None] == []


def test_the_cut_backbone_computes_what_the_classifier_computes() -> None:
    whole = alexnet(weights=None).eval()
    model = de.DenseModel(whole, cut="features.5", weights=None, min_size=(14, 19)).eval()
    x = torch.rand(2, 3, 240, 320)
    with torch.no_grad():
        features, *_ = model.backbone(x)
        torch.testing.assert_close(features, whole.features[:6](x), rtol=0, atol=0)


def test_inception_shifts_its_input_as_its_weights_expect() -> None:
    whole = inception_v3(weights=None, init_weights=False, transform_input=True).eval()
    model = de.DenseModel("inception_v3", cut="Conv2d_1a_3x3", weights=None).eval()
    model.backbone.network.load_state_dict(whole.state_dict(), strict=False)
    x = torch.rand(1, 3, 240, 320)
    with torch.no_grad():
        expected = whole.Conv2d_1a_3x3(whole._transform_input(x))
        features, *_ = model.backbone(x)
        torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-6)


def test_normalization_depends_on_the_backbone() -> None:
    assert normalization("alexnet").mean == (0.485, 0.456, 0.406)
    assert normalization("timm/tf_efficientnet_lite0").mean == (0.5, 0.5, 0.5)
    model = de.DenseModel("timm/tf_efficientnet_lite0", weights=None, min_size=(12, 16)).eval()
    x = torch.rand(1, 3, 96, 128)
    with torch.no_grad():
        by_hand = model.head(model.backbone((x - 0.5) / 0.5), (48, 64))
        torch.testing.assert_close(model(x), by_hand, rtol=0, atol=0)


def test_input_size_resizes_the_images() -> None:
    model = de.DenseModel("squeezenet1_1", weights=None, input_size=(96, 128), min_size=(5, 7)).eval()
    x = torch.rand(1, 3, 200, 333)
    resized = F.interpolate(x, size=(96, 128), mode="bilinear", align_corners=False, antialias=True)
    with torch.no_grad():
        torch.testing.assert_close(model(x), model(resized), rtol=0, atol=0)


def test_it_can_be_pickled() -> None:
    """Training on several devices pickles the model."""
    model = de.DenseModel("resnet18", weights=None, out_size=(12, 16)).eval()
    x = torch.rand(1, 3, 48, 64)
    with torch.no_grad():
        assert torch.equal(pickle.loads(pickle.dumps(model))(x), model(x))


def test_a_spec_builds_the_same_network_again() -> None:
    model = de.DenseModel("timm/tf_efficientnet_lite0", out_channels=4, out_size=None, weights=None).eval()
    again = de.DenseModel.from_spec(DenseSpec.from_dict(model.spec.as_dict()))
    again.load_state_dict(model.state_dict())
    x = torch.rand(1, 3, 64, 80)
    with torch.no_grad():
        assert torch.equal(again(x), model(x))
    empty = de.DenseModel.from_spec(model.spec, "meta")
    assert all(p.is_meta for p in empty.parameters())


def test_it_can_learn_one_image() -> None:
    model = de.DenseModel("resdeconv", out_size=(12, 16), weights=None, input_size=(48, 64), min_size=(3, 4))
    x, expected = torch.rand(2, 3, 48, 64), (torch.rand(2, 1, 12, 16) > 0.5).float()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(model(x), expected)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize("shape", [(3, 96, 128), (1, 1, 96, 128), (1, 4, 96, 128)])
def test_images_of_a_wrong_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"\(B, 3, H, W\)"):
        de.DenseModel("resdeconv", weights=None, min_size=(6, 8))(torch.rand(shape))


def test_unknown_head() -> None:
    with pytest.raises(UsageError, match="no head is named 'hat'; there are: fpn, skip"):
        de.DenseModel("alexnet", head="hat", weights=None)
    with pytest.raises(UsageError, match=r"no head is named 'unet'; did you mean 'smp-unet'"):
        de.DenseModel("alexnet", head="unet", weights=None)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"out_size": 48}, r"out_size=48 is not a height and a width in pixels; write \(48, 64\) or '48x64'"),
        ({"out_size": (0, 5)}, r"out_size=\(0, 5\) is not"),
        ({"min_size": "60"}, "size '60' is not HEIGHTxWIDTH"),
        ({"max_stride": "8"}, "max_stride='8' is not a limit; give a positive number"),
        ({"max_macs": -3}, "max_macs=-3 is not a limit"),
        ({"in_channels": 0}, "in_channels=0 is not a number of channels"),
        ({"out_channels": 2.5}, r"out_channels=2\.5 is not a number of channels"),
        ({"in_channels": 4, "mean": (0.5,) * 3}, r"mean=.* must have one number for each of the 4 channels"),
        ({"std": (0.2, 0, 0.2)}, "must be finite and positive"),
    ],
)
def test_wrong_arguments_are_named(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        de.DenseModel("alexnet", weights=None, **wrong)  # type: ignore[arg-type]


def test_sizes_may_be_text() -> None:
    spec = de.DenseModel("alexnet", weights=None, out_size="24x32", min_size=[10, 10], input_size="96x128").spec  # type: ignore[arg-type]
    assert (spec.out_size, spec.input_size) == ((24, 32), (96, 128))


def test_a_function_is_not_a_network() -> None:
    with pytest.raises(UsageError, match=r"alexnet is a class or function, not a network; .* its name: 'torchvision"):
        de.DenseModel(alexnet, weights=None)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"a name or a torch.nn.Module, got a int"):
        de.DenseModel(7, weights=None)  # type: ignore[arg-type]


def test_integer_or_empty_images() -> None:
    net = de.DenseModel("resdeconv")
    with pytest.raises(UsageError, match=r"float in .0, 1., got torch.uint8; divide by 255"):
        net(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    with pytest.raises(UsageError, match=r"got \(1, 3, 0, 64\)"):
        net(torch.zeros(1, 3, 0, 64))
    with pytest.raises(UsageError, match=r"got \(1, 4, 64, 64\); give 3 channels first, convert to RGB"):
        net(torch.zeros(1, 4, 64, 64))


@pytest.mark.parametrize(
    "name",
    sampled(["resnet18", "timm/tf_efficientnet_lite0", "timm/vit_tiny_patch16_224"], ["timm/tf_efficientnet_lite0"]),
)
def test_a_copy_computes_the_same_in_the_same_mode(name: str) -> None:
    """Copies of torchvision's graph modules lose eval mode and would then use and change batch statistics."""
    model = de.DenseModel(name, weights=None).eval()
    x = torch.rand(2, 3, 96, 128)
    with torch.no_grad():
        expected = model(x)
        copied = copy.deepcopy(model)
        torch.testing.assert_close(copied(x), expected, rtol=0, atol=0)
    assert {m.training for m in copied.modules()} == {False}
    model.train()
    frozen = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)][:3]
    for module in frozen:
        module.eval()
    modes = {key: module.training for key, module in model.named_modules()}
    assert {key: module.training for key, module in copy.deepcopy(model).named_modules()} == modes


def test_networks_of_one_specification_have_nothing_in_common() -> None:
    """They are copies of one cached network: weights loaded into one must not appear in the next."""
    model = de.DenseModel("resdeconv", weights=None)
    first = de.DenseModel.from_spec(model.spec, "meta")
    first.load_state_dict(model.state_dict(), assign=True)
    first.train()
    second = de.DenseModel.from_spec(model.spec, "meta")
    assert all(tensor.is_meta for tensor in second.parameters()) and not any(p.is_meta for p in first.parameters())
    assert not second.training and not {id(m) for m in first.modules()} & {id(m) for m in second.modules()}
    second.load_state_dict(model.state_dict(), assign=True)
    images = torch.rand(1, 3, 64, 80)
    with torch.no_grad():
        torch.testing.assert_close(second(images), model.eval()(images), rtol=0, atol=0)
