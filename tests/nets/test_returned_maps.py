"""Networks that return several feature maps: these maps are the stages, and no layer before the deepest is removed."""

import dataclasses
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import densemble as de
from densemble.errors import UsageError
from densemble.nets.cuts import measured

Maps = list[Tensor]
SIZE = (64, 96)


class Pair(NamedTuple):
    scores: Tensor
    last: Tensor


@dataclasses.dataclass
class Three:
    first: Tensor
    second: Tensor
    third: Tensor


class Body(nn.Module):
    """Three strided convolutions, and what ``form`` makes of their maps; with ``branches`` no graph can be traced."""

    def __init__(self, form: Callable[[Maps], Any], branches: bool = False, channels: int = 3) -> None:
        super().__init__()
        widths = (channels, 4, 8, 16)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in pairwise(widths))
        self.form, self.branches = form, branches

    def forward(self, x: Tensor) -> Any:
        if self.branches and x.shape[1] != self.layers[0].in_channels:
            raise ValueError("other channels")
        maps = []
        for layer in self.layers:
            x = layer(x).relu()
            maps.append(x)
        return self.form(maps)


class Listing(nn.Sequential):
    """A sequence that returns the maps of all its layers."""

    def forward(self, x: Tensor) -> Maps:
        maps = []
        for layer in self:
            x = layer(x)
            maps.append(x)
        return maps


def tokens(maps: Maps) -> Maps:
    return [each.flatten(2).transpose(1, 2) for each in maps]


# (output of the network, its feature maps with the deepest first)
FORMS: dict[str, tuple[Callable[[Maps], Any], Callable[[Any], Maps]]] = {
    "list": (lambda maps: maps, lambda out: out[::-1]),
    "tuple": (tuple, lambda out: list(out[::-1])),
    "dictionary": (lambda maps: dict(zip("abc", maps, strict=True)), lambda out: [out["c"], out["b"], out["a"]]),
    "dataclass": (lambda maps: Three(*maps), lambda out: [out.third, out.second, out.first]),
    "named tuple": (lambda maps: Pair(maps[-1].mean((2, 3)), maps[-1]), lambda out: [out.last]),
    "nested": (lambda maps: {"scores": maps[-1].mean((2, 3)), "maps": maps}, lambda out: out["maps"][::-1]),
    "deepest first": (lambda maps: maps[::-1], lambda out: out),
    "channels last": (
        lambda maps: [each.permute(0, 2, 3, 1) for each in maps],
        lambda out: [each.permute(0, 3, 1, 2) for each in out[::-1]],
    ),
    "tokens": (
        tokens,
        lambda out: [out[i].transpose(1, 2).unflatten(2, (64 >> i + 1, 96 >> i + 1)) for i in (2, 1, 0)],
    ),
}


def dense(network: nn.Module, **options: Any) -> de.DenseModel:
    given: dict[str, Any] = {"out_size": SIZE, "input_size": SIZE, "weights": None, "mean": None, "std": None}
    channels = options.get("in_channels", 3)
    given |= {"mean": (0.0,) * channels, "std": (1.0,) * channels}
    return de.DenseModel(network, **(given | options)).eval()


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("branches", [False, True], ids=["traced", "run"])
@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_output(name: str, branches: bool) -> None:
    form, deepest_first = FORMS[name]
    network = Body(form, branches).eval()
    model = dense(network)
    x = torch.rand(2, 3, *SIZE)
    with torch.no_grad():
        result, expected = model.backbone(x), deepest_first(network(x))
        assert len(result) == len(expected)
        for actual, other in zip(result, expected, strict=True):
            torch.testing.assert_close(actual, other, rtol=0, atol=0)
    assert count(model.backbone) == count(network)
    assert model.cut.listed and f"{len(expected)} maps that the network returns" in model.cut.why


def test_heads_of_one_map_get_the_deepest() -> None:
    """Even at a stride of 64; in a network that returns class scores, the limit for such a head is 16."""
    layers = (nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.Conv2d(4, 4, 1)), nn.Conv2d(4, 8, 8, 8))
    model = dense(Listing(*layers), head="upsample", input_size=(128, 192))
    assert model.cut.stride == (64, 64) and count(model.backbone) == sum(map(count, layers))


def test_an_image_that_is_too_small_for_the_deepest_map_is_refused() -> None:
    network = Listing(nn.Conv2d(3, 4, 8, 8), nn.Conv2d(4, 8, 8, 8))
    with pytest.raises(UsageError, match=r"Listing does not run on a 3-channel image of 32x48 .*Kernel size"):
        dense(network, input_size=(32, 48))


def test_a_limit_of_the_user_selects_among_the_returned_maps() -> None:
    model = dense(Body(lambda maps: maps), max_stride=4)
    assert (model.cut.channels, model.cut.stride, len(model.spec.skip_nodes)) == (8, (4, 4), 1)
    assert "with a stride of at most 4" in model.cut.why


def test_features_only_of_timm() -> None:
    network = timm.create_model("mobilenetv3_small_050", features_only=True, out_indices=(1, 2, 3, 4)).eval()
    model = de.DenseModel(network, out_size=None, mean=(0.0,) * 3, std=(1.0,) * 3).eval()
    x = torch.rand(1, 3, 96, 128)
    with torch.no_grad():
        for actual, other in zip(model.backbone(x), network(x)[::-1], strict=True):
            torch.testing.assert_close(actual, other, rtol=0, atol=0)
    assert count(model.backbone) == count(network)


class Hooked(Body):
    """Returns the maps stored by hooks, like timm's FeatureHookNet; tracing stores proxies and gives an empty graph."""

    def __init__(self) -> None:
        super().__init__(lambda maps: maps)
        self.kept: Maps = []
        for layer in self.layers:
            layer.register_forward_hook(self.keep)

    def keep(self, layer: nn.Module, inputs: Any, output: Tensor) -> None:
        self.kept.append(output)

    def forward(self, x: Tensor) -> Any:
        self.kept = []
        super().forward(x)
        return list(self.kept) if isinstance(x, Tensor) else x


def test_a_network_of_hooks_keeps_nothing_of_the_tracer() -> None:
    network = Hooked().eval()
    model = dense(network)
    x = torch.rand(1, 3, *SIZE)
    with torch.no_grad():
        for actual, other in zip(model.backbone(x), network(x)[::-1], strict=True):
            torch.testing.assert_close(actual, other, rtol=0, atol=0)
    assert model.cut.kind == "outputs"


def test_a_network_that_cannot_be_copied_is_cut_all_the_same() -> None:
    network = Scores()
    network.body.layers[1] = torch.nn.utils.weight_norm(network.body.layers[1])
    network(torch.rand(1, 3, *SIZE))  # stores a non-leaf tensor
    model = dense(network)
    x = torch.rand(1, 3, *SIZE)
    with torch.no_grad():
        torch.testing.assert_close(model.backbone(x)[0], network.body(x))


def test_a_network_that_returns_something_else_in_training_is_refused() -> None:
    class Moody(Body):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x) if not self.training else [super().forward(x)[0]]

    model = dense(Moody(lambda maps: maps, branches=True)).train()
    with pytest.raises(UsageError, match="returns no '2' in training mode, but 0; change its forward"):
        model(torch.rand(2, 3, *SIZE))


def test_tokens_in_another_order_are_refused() -> None:
    shuffled = Body(lambda maps: [tokens(maps)[0].flip(1)])
    with pytest.raises(UsageError, match="the tokens '0' that Body returns are not in the order of the image's patch"):
        dense(shuffled)


# --- Hugging Face's convention, without the library ------------------------------------------------------------------


class ModelOutput(dict[str, Any]):
    """A dictionary whose items are attributes too."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


class Transformer(nn.Module):
    """A class token and patches of 16 pixels; returns hidden states only on request."""

    def __init__(self) -> None:
        super().__init__()
        self.config = type("Config", (), {"image_size": 64, "output_hidden_states": False})()
        self.patches = nn.Conv2d(3, 8, 16, 16)
        self.token = nn.Parameter(torch.rand(1, 1, 8))
        self.positions = nn.Parameter(torch.rand(1, 8, 4, 4))
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))
        self.pooler = nn.Linear(8, 8)

    def forward(
        self, pixel_values: Tensor, output_hidden_states: bool = False, interpolate_pos_encoding: bool = False
    ) -> ModelOutput:
        if tuple(pixel_values.shape[2:]) != (64, 64) and not interpolate_pos_encoding:
            raise ValueError("Input image size doesn't match model (64*64)")
        patches = self.patches(pixel_values)
        patches = patches + nn.functional.interpolate(self.positions, patches.shape[2:])
        x = torch.cat([self.token.expand(len(patches), -1, -1), patches.flatten(2).transpose(1, 2)], 1)
        states = [x]
        for block in self.blocks:
            x = x + block(x) + 0.01 * x.mean(1, keepdim=True)
            states.append(x)
        output = ModelOutput(last_hidden_state=x, pooler_output=self.pooler(x[:, 0]))
        if output_hidden_states:
            output["hidden_states"] = tuple(states)
        return output


class Pyramid(nn.Module):
    """Like Swin: returns the stages as tokens and as maps; a small image changes its window permanently."""

    def __init__(self) -> None:
        super().__init__()
        self.config = type("Config", (), {"image_size": 64, "output_hidden_states": False})()
        self.body, self.window = Body(lambda maps: maps), 8
        self.conv_last = nn.Conv2d(16, 16, 1)

    def forward(self, pixel_values: Tensor, **options: Any) -> ModelOutput:
        maps = self.body(pixel_values)
        if min(maps[-1].shape[2:]) < self.window:
            self.window = min(maps[-1].shape[2:])
        maps[-1] = maps[-1] * self.window
        output = ModelOutput(last_hidden_state=tokens(maps)[-1])
        if options.get("output_hidden_states"):
            output |= {"hidden_states": tuple(tokens(maps)), "reshaped_hidden_states": tuple(maps)}
        return output


def test_hidden_states_are_stages() -> None:
    network = Transformer().eval()
    model = dense(network, input_size=(80, 112))
    x = torch.rand(2, 3, 80, 112)
    with torch.no_grad():
        states = network(x, output_hidden_states=True, interpolate_pos_encoding=True).hidden_states
        result = model.backbone(x)
    assert (model.cut.kind, model.cut.node) == ("outputs", "hidden_states.4")
    for node, actual in zip((model.spec.node, *model.spec.skip_nodes), result, strict=True):
        expected = states[int(node.rpartition(".")[2])][:, 1:].transpose(1, 2).unflatten(2, (5, 7))
        torch.testing.assert_close(actual, expected, rtol=0, atol=0)
    assert count(model.backbone) == count(network) - count(network.pooler)
    model.train()(torch.rand(2, 3, 50, 70)).mean().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_feature_maps_come_first_and_a_probe_changes_nothing() -> None:
    network = Pyramid().eval()
    model = dense(network, input_size=(96, 128))
    assert network.window == 8 and getattr(model.backbone.network, "window") == 8  # noqa: B009
    assert str(model.spec.rule) == "any size from 64"
    assert model.spec.node == "reshaped_hidden_states.2" and len(model.spec.skip_nodes) == 2
    x = torch.rand(1, 3, 96, 128)
    with torch.no_grad():
        maps = network(x, output_hidden_states=True).reshaped_hidden_states
        for actual, other in zip(model.backbone(x), maps[::-1], strict=True):
            torch.testing.assert_close(actual, other, rtol=0, atol=0)


def made() -> nn.Module:
    torch.manual_seed(0)
    return Transformer()


def test_a_functions_network_is_built_again_from_its_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hidden_states_network", sys.modules[__name__])
    model = dense(made(), input_size=None)
    named = de.DenseModel("hidden_states_network:made", out_size=SIZE, mean=(0.0,) * 3, std=(1.0,) * 3).eval()
    assert named.spec.node == model.spec.node and named.spec.layouts == ("NLC/16+1",) * 4
    again = de.DenseModel.from_spec(type(named.spec).from_dict(named.spec.as_dict()))
    again.load_state_dict(named.state_dict())
    x = torch.rand(1, 3, 70, 90)
    with torch.no_grad():
        assert torch.equal(again(x), named(x))


# --- channels, arguments, wrappers -----------------------------------------------------------------------------------


class Scores(nn.Module):
    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.body = Body(lambda maps: maps[-1], channels=channels)

    def forward(self, x: Tensor) -> Any:
        return self.body(x).mean((2, 3))


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_user_networks_of_other_channels(channels: int) -> None:
    network = Scores(channels).eval()
    model = dense(network, in_channels=channels)
    x = torch.rand(1, channels, *SIZE)
    with torch.no_grad():
        torch.testing.assert_close(model.backbone(x)[0], network.body(x), rtol=0, atol=0)
    assert model.spec.own_channels == channels and not model.spec.stem and measured(network).channels == channels
    with pytest.raises(UsageError, match=f"takes images of {channels} channels, not of 3; set in_channels={channels}"):
        dense(network)


class Masked(Scores):
    def forward(self, x: Tensor, mask: Tensor | None = None, scale: float = 2.0) -> Any:
        x = self.body(x)
        return x * scale if mask is None else x * mask


class NeedsMask(Scores):
    def forward(self, x: Tensor, mask: Tensor) -> Any:  # type: ignore[override]
        return self.body(x) * mask


def test_further_arguments_keep_their_defaults() -> None:
    network = Masked().eval()
    model = dense(network)
    x = torch.rand(1, 3, *SIZE)
    with torch.no_grad():
        torch.testing.assert_close(model.backbone(x)[0], network(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (NeedsMask(), r"NeedsMask does not run on an image alone \(missing a required argument: 'mask'.*Wrapped"),
        (Scores().half(), r"the parameters of Scores are torch.float16; pass Scores.float\(\)"),
        (nn.Linear(7, 3), r"Linear does not run on a 3-channel image.*mat1 and mat2.*try it on torch.zeros"),
    ],
)
def test_networks_that_do_not_run_are_errors_with_the_cause(network: nn.Module, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        de.DenseModel(network)


class Compiled(nn.Module):
    """Stores the module like torch.compile."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._orig_mod = network


WRAPPERS: list[Callable[[nn.Module], nn.Module]] = [Compiled, nn.DataParallel, AveragedModel]


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_wrapped_networks_and_members_are_unwrapped(wrap: Callable[[nn.Module], nn.Module], tmp_path: Path) -> None:
    network = Scores().eval()
    model = dense(wrap(network))
    x = torch.rand(1, 3, *SIZE)
    with torch.no_grad():
        torch.testing.assert_close(model.backbone(x)[0], network.body(x), rtol=0, atol=0)
    assert model.spec.backbone == "module:Scores"
    member = de.DenseModel("resdeconv", weights=None, out_size=(12, 16)).eval()
    ensemble = de.Ensemble([wrap(member)]).eval()  # type: ignore[list-item]
    with torch.no_grad():
        torch.testing.assert_close(ensemble(x), de.Ensemble([member]).eval()(x), rtol=0, atol=0)
    de.save(wrap(ensemble), tmp_path / "wrapped.safetensors")  # type: ignore[arg-type]
    with torch.no_grad():
        torch.testing.assert_close(de.load(tmp_path / "wrapped.safetensors")(x), ensemble(x), rtol=0, atol=0)


class Tokens(nn.Module):
    """Patches of 16 pixels as tokens ``(B, L, C)``, like vision transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.mixed = nn.Conv2d(3, 8, 16, 16), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> list[Tensor]:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        return [tokens, self.mixed(tokens)]


def test_tokens_are_exported_with_any_number_of_images() -> None:
    model = de.DenseModel(Tokens(), out_size=(16, 16), input_size=(64, 64), mean=(0.0,) * 3, std=(1.0,) * 3).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (torch.rand(3, 3, 64, 64),), dynamic_shapes=({0: batch},)).module()
    for count in (1, 2, 5):
        x = torch.rand(count, 3, 64, 64)
        with torch.no_grad():
            torch.testing.assert_close(program(x), model(x))


class Shuffled(Tokens):
    """Like masked autoencoders: a random quarter of the tokens of each image."""

    def forward(self, x: Tensor) -> list[Tensor]:
        tokens = super().forward(x)[0]
        kept = torch.rand(tokens.shape[:2]).argsort(1)[:, : tokens.shape[1] // 4, None].expand(-1, -1, 8)
        few = tokens.gather(1, kept)
        return [few, self.mixed(few)]


def test_a_network_whose_forward_is_random_is_refused() -> None:
    with pytest.raises(UsageError, match=r"for the same image: its forward is random"):
        de.DenseModel(Shuffled(), out_size=(16, 16), input_size=(64, 64), mean=(0.0,) * 3, std=(1.0,) * 3)
