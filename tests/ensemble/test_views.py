"""Views: the transform of images is undone on maps; weights are shared with the member."""

import copy
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.member_views import VIEWS, ViewedMember, make_view
from densemble.errors import UsageError
from densemble.nets.dense import DenseModel, DenseSpec
from densemble.nets.heads.head import DenseHead
from densemble.shapes import Size

EXACT = [name for name, view in VIEWS.items() if view.scale == 1]
SCALES = ["scale75", "scale125", "scale60"]


class PixelHead(DenseHead):
    """A 1x1 convolution, resized: its value at a pixel depends on that pixel only."""

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, out_channels, 1)

    def grid(self, maps: Sequence[Tensor], size: Size | None) -> Tensor:
        return nn.functional.interpolate(self.mix(maps[0]), size=size, mode="bilinear", antialias=True)


class Images(nn.Module):
    """A backbone that returns its input and records the size."""

    def forward(self, images: Tensor) -> list[Tensor]:
        self.seen = tuple(images.shape[-2:])
        return [images]


def pixelwise(input_size: Size | None = None, out_size: Size | None = None, fixed: Size | None = None) -> DenseModel:
    """A real dense model, but equivariant to every turn and flip."""
    model = DenseModel.__new__(DenseModel)
    nn.Module.__init__(model)
    model.spec = DenseSpec("pixels", "", 3, "", 0, 2, out_size, input_size, (0.0,) * 3, (1.0,) * 3, fixed=fixed)
    model.backbone, model.head = Images(), PixelHead(2)
    model.register_buffer("mean", torch.zeros(1, 3, 1, 1))
    model.register_buffer("std", torch.ones(1, 3, 1, 1))
    return model.eval()


def smooth(height: int, width: int) -> Tensor:
    y, x = torch.linspace(0, 3, height)[:, None], torch.linspace(0, 2, width)[None]
    return torch.stack([torch.sin(y + x), torch.cos(y - 2 * x), torch.sin(y) * torch.cos(x)])[None] / 2 + 0.5


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("shape", [(2, 3, 6, 9), (1, 1, 5, 5)])
def test_undo_is_the_inverse_of_change(name: str, shape: tuple[int, ...]) -> None:
    view, images = make_view(name), torch.rand(shape)
    changed = view.change(images)
    assert changed.shape[-2:] == view.turned(shape[-2:])
    assert torch.equal(view.undo(changed), images)


def test_views_match_their_names() -> None:
    image = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, None]
    expected = {
        "hflip": [[2, 1], [4, 3]], "vflip": [[3, 4], [1, 2]], "rot180": [[4, 3], [2, 1]],
        "rot90": [[2, 4], [1, 3]], "rot270": [[3, 1], [4, 2]],
    }  # fmt: skip
    assert set(expected) == set(EXACT)
    for name, values in expected.items():
        assert make_view(name).change(image)[0, 0].tolist() == values


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize(
    ("input_size", "out_size"), [(None, None), ((12, 16), None), ((12, 16), (6, 8)), (None, (5, 7))]
)
def test_an_equivariant_network_is_unchanged_by_exact_views(
    name: str, input_size: Size | None, out_size: Size | None
) -> None:
    member, images = pixelwise(input_size, out_size), torch.rand(2, 3, 20, 28)
    torch.testing.assert_close(ViewedMember(member, name)(images), member(images), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", SCALES)
@pytest.mark.parametrize(("input_size", "out_size"), [(None, None), ((48, 64), (24, 32))])
def test_a_scale_changes_smooth_maps_little_and_their_size_never(
    name: str, input_size: Size | None, out_size: Size | None
) -> None:
    member, images = pixelwise(input_size, out_size), smooth(60, 80)
    plain, viewed = member(images), ViewedMember(member, name)(images)
    usual = input_size or (60, 80)
    assert member.backbone.seen == tuple(round(side * make_view(name).scale) for side in usual)
    assert viewed.shape == plain.shape and not torch.equal(viewed, plain)
    torch.testing.assert_close(viewed, plain, atol=0.02, rtol=0)


def test_turned_images_are_not_squeezed() -> None:
    member = pixelwise((12, 16), (6, 8))
    assert ViewedMember(member, "rot90")(torch.rand(1, 3, 24, 32)).shape == (1, 2, 6, 8)
    assert member.backbone.seen == (16, 12)
    assert member.spec.input_size == (12, 16), "the member itself is as it was"


def test_a_real_network_through_a_view_is_the_network_on_flipped_images() -> None:
    torch.manual_seed(0)
    member = DenseModel("resdeconv", out_size=(12, 16), weights=None, input_size=(48, 64)).eval()
    images = torch.rand(2, 3, 50, 70)
    with torch.no_grad():
        viewed = ViewedMember(member, "hflip")(images)
        torch.testing.assert_close(viewed, member(images.flip(-1)).flip(-1), atol=1e-5, rtol=1e-4)
        assert not torch.allclose(viewed, member(images), atol=1e-3)


def test_in_an_ensemble_weights_are_shared_and_counted_once() -> None:
    member = pixelwise(out_size=(6, 8))
    views = {f"one@{name}": ViewedMember(member, name) for name in (*EXACT, *SCALES)}
    ensemble = Ensemble({"one": member, **views}, [1.0] * (1 + len(views)))
    assert len(list(ensemble.parameters())) == len(list(member.parameters()))
    images = torch.rand(1, 3, 12, 16)
    mean = torch.stack([maps for _, maps in ensemble.member_maps(images)]).mean(0)
    torch.testing.assert_close(ensemble(images), mean, atol=1e-6, rtol=0)
    ensemble.double()
    assert views["one@hflip"](images.double()).dtype == torch.float64
    with torch.no_grad():
        member.head.mix.weight.zero_()
        member.head.mix.bias.fill_(3.0)
    torch.testing.assert_close(views["one@rot90"](images.double()), torch.full((1, 2, 6, 8), 3.0).double())
    alone = copy.deepcopy(views["one@hflip"])
    with torch.no_grad():
        member.head.mix.bias.fill_(5.0)
    assert float(alone(images.double()).detach().mean()) == pytest.approx(3.0)


def test_gradients_pass() -> None:
    member = pixelwise(out_size=(6, 8))
    ViewedMember(member, "scale75")(torch.rand(1, 3, 12, 16)).sum().backward()
    assert member.head.mix.bias.grad.tolist() == [48.0, 48.0]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hflop", "did you mean 'hflip'"),
        ("rot45", "did you mean 'rot"),
        ("sideways", "there are: hflip, vflip"),
        ("scale0.75", "scaleN"),
        ("scale100", "other than 100"),
        ("scale2", "from 25 to 400"),
    ],
)
def test_unknown_views_are_refused(name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ViewedMember(pixelwise(), name)


def test_a_backbone_of_one_size_has_no_scales() -> None:
    member = pixelwise((8, 8), (8, 8), fixed=(8, 8))
    with pytest.raises(UsageError, match="8x8 only"):
        ViewedMember(member, "scale75")
    images = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(ViewedMember(member, "rot90")(images), member(images), atol=1e-5, rtol=0)


def test_names_can_name_modules() -> None:
    for name in (*VIEWS, "scale333"):
        assert "." not in name and make_view(name).name == name
    assert replace(make_view("scale150"), name="") == replace(VIEWS["scale125"], name="", scale=1.5)
