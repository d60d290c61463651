"""Shared computation against each model separately: bit-equal inputs, and common nodes run once."""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from sampled import sampled
from torch import Tensor, fx, nn

import densemble as de
from densemble.nets.counting import count_macs
from densemble.nets.dense import DenseSpec
from densemble.nets.rewrite import for_inference
from densemble.nets.sharing import MergedTrunk, Shared, alike, share
from densemble.nets.trunks import GraphBackbone

SEEN = (64, 96)


@cache
def spec(backbone: str, cut: str, head: str) -> DenseSpec:
    return de.DenseModel(backbone, weights=None, cut=cut, head=head).spec


def model(backbone: str = "resnet18", cut: str = "auto", head: str = "upsample") -> de.DenseModel:
    """A model with new random weights."""
    return de.DenseModel.from_spec(spec(backbone, cut, head))


def with_backbone_of(other: de.DenseModel, taught: de.DenseModel) -> de.DenseModel:
    """The model with the backbone parameters of the other model, as if both were frozen."""
    given = taught.backbone.network.state_dict()
    actual = other.backbone.network.state_dict()
    other.backbone.network.load_state_dict({key: given.get(key, value) for key, value in actual.items()})
    return other


def require(shared: Shared | None) -> Shared:
    assert shared is not None
    return shared


def calls_of(network: nn.Module, kind: type[nn.Module], run: Callable[[], object]) -> int:
    called: list[int] = []
    hooks = [
        module.register_forward_hook(lambda *_: called.append(1))
        for module in network.modules()
        if isinstance(module, kind)
    ]
    run()
    for hook in hooks:
        hook.remove()
    return len(called)


@pytest.mark.parametrize("form", [lambda one: one, for_inference], ids=["plain", "rewritten"])
@pytest.mark.parametrize(
    ("backbone", "heads"),
    sampled(
        [("resnet18", ("upsample", "skip", "upsample")), ("squeezenet1_1", ("upsample", "upsample")),
         ("timm/test_vit", ("upsample", "upsample"))],
        [("resnet18", ("upsample", "skip", "upsample"))],
    ),
)  # fmt: skip
def test_frozen_backbones_give_the_same_grids(
    backbone: str, heads: tuple[str, ...], form: Callable[[de.DenseModel], de.DenseModel]
) -> None:
    first, *others = [model(backbone, head=head) for head in heads]
    models = [form(one) for one in (first, *(with_backbone_of(other, first) for other in others))]
    seen = models[0].network_size(SEEN)
    images = torch.randn(2, 3, *seen)
    with torch.no_grad():
        result = require(share(models, seen))(images)
        expected = [one.grid(images) for one in models]
    torch.testing.assert_close(list(result), expected, rtol=0, atol=0)
    assert not torch.equal(expected[0], expected[1])


def test_a_frozen_stem_runs_once_and_its_work_is_saved() -> None:
    first, second = model(), model()
    with_backbone_of(second, first)
    with torch.no_grad():
        second.backbone.network.get_submodule("layer3.0.conv1").weight.mul_(1.1)  # type: ignore[operator,union-attr]
    images = torch.randn(2, 3, *SEEN)
    shared = require(share([first, second], SEEN))
    with torch.no_grad():
        expected = [first.grid(images), second.grid(images)]
        torch.testing.assert_close(list(shared(images)), expected, rtol=0, atol=0)
        once = calls_of(shared, nn.Conv2d, lambda: shared(images))
        apart = calls_of(first, nn.Conv2d, lambda: first.grid(images))
    stem = next(cut for cut in de.cuts("resnet18", size=SEEN) if cut.node == "layer2")
    assert 2 * apart - once == 1 + 4 + 5  # the first convolution, layer1, layer2 with its shortcut
    total = count_macs(shared, SEEN, "cpu") + stem.macs
    assert shared.saved == pytest.approx(stem.macs / total, rel=1e-9)


def test_cuts_at_different_depths() -> None:
    deep = model()
    shallow = with_backbone_of(model(cut="layer2"), deep)
    images = torch.randn(1, 3, *SEEN)
    for models in ([deep, shallow], [shallow, deep]):
        with torch.no_grad():
            result = require(share(models, SEEN))(images)
            torch.testing.assert_close(list(result), [one.grid(images) for one in models], rtol=0, atol=0)


def test_where_steps_stop() -> None:
    first = model()
    models = [first, with_backbone_of(model(), first)]
    images = torch.randn(1, 3, *SEEN)
    with torch.no_grad():
        result = require(share(models, SEEN, (7, 9)))(images)
        torch.testing.assert_close(list(result), [one.grid(images, (7, 9)) for one in models], rtol=0, atol=0)


class Kept(nn.Module):
    """Returns the map of a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"map": self.layer(x)}


class Overwritten(Kept):
    """Changes the map of a layer in place and uses the changed map."""

    def __init__(self, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.change = change

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.layer(x)
        return {"map": self.change(features) * 2 + features}


@pytest.mark.parametrize(
    "change",
    [nn.ReLU(inplace=True), lambda x: x.relu_(), lambda x: F.relu(x, inplace=True)],
    ids=["module", "method", "function"],
)
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (1, 2, 0)])
def test_an_in_place_change_in_one_model_does_not_reach_the_others(
    change: Callable[[Tensor], Tensor], order: tuple[int, ...]
) -> None:
    networks = [Kept(), Overwritten(change), Overwritten(nn.Identity())]
    for network in networks:
        network.layer.load_state_dict(networks[0].layer.state_dict())
    backbones = [GraphBackbone(fx.symbolic_trace(networks[i]), ["map"], ["NCHW"]) for i in order]
    images, trunk = torch.randn(1, 3, 4, 4), MergedTrunk(backbones)
    torch.testing.assert_close(trunk(images), [one(images) for one in backbones], rtol=0, atol=0)
    assert calls_of(trunk, nn.Conv2d, lambda: trunk(images)) == 1


def test_models_with_little_in_common_are_not_shared() -> None:
    first = model()
    assert share([first], SEEN) is None
    assert share([first, model()], SEEN) is None  # other weights
    assert share([first, model("squeezenet1_1")], SEEN) is None
    twin = with_backbone_of(model(), first)
    assert share([first, twin], SEEN) is not None
    twin.spec = replace(first.spec, mean=(0.1, 0.2, 0.3))
    assert share([first, twin], SEEN) is None  # normalized differently
    twin.spec = replace(first.spec, input_size=(32, 32))
    assert share([first, twin], SEEN) is None  # sees another size


def test_it_can_be_exported() -> None:
    first = model()
    models = [for_inference(first), for_inference(with_backbone_of(model(head="skip"), first))]
    shared = require(share(models, SEEN))
    images = torch.randn(1, 3, *SEEN)
    with torch.no_grad():
        exported = torch.export.export(shared, (images,))
        torch.testing.assert_close(exported.module()(images), shared(images), rtol=1e-6, atol=1e-6)
    convolutions = [node for node in exported.graph.nodes if "conv2d" in str(node.target)]
    assert len(convolutions) == calls_of(shared, nn.Conv2d, lambda: shared(images))


def test_alike() -> None:
    layer = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.1)).eval()
    assert alike(layer, copy.deepcopy(layer))
    changes: list[Callable[[nn.Sequential], object]] = [
        lambda one: one[0].weight.data[0, 0, 0, 0].add_(1e-6),
        lambda one: one[1].running_var.add_(1e-6),
        lambda one: setattr(one[1], "eps", 1e-3),
        lambda one: setattr(one[0], "stride", (2, 2)),
        lambda one: one[2].train(),
        lambda one: one.append(nn.Identity()),
        lambda one: one[0].register_forward_hook(lambda *_: None),
        lambda one: one.double(),
    ]
    for change in changes:
        other = copy.deepcopy(layer)
        change(other)
        assert not alike(layer, other)
    assert alike((1, [2.0, {"a": None}], torch.float32), (1, [2.0, {"a": None}], torch.float32))
    assert not alike(1, 1.0) and not alike([1], (1,)) and not alike(object(), object())
