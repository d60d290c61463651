"""Input sizes: the rule by hand, and networks of all kinds with images of other sizes."""

import pytest
import torch
from sampled import sampled
from torchvision.models import VisionTransformer, vit_b_32

import densemble as de
from densemble.nets.sizes import InputRule, find_rule, find_rule_above, with_smallest
from densemble.nets.vision_transformer import ResamplingTransformer

# Any size; windows; fixed grids; two branches; unpadded; patches of 14.
NETWORKS = [
    "alexnet",
    "inception_v3",
    "swin_t",
    "maxvit_t",
    "vit_b_32",
    "timm/vit_small_patch14_dinov2",
    "timm/mixer_s32_224",
    "timm/crossvit_9_240",
    "timm/hrnet_w18_small",
    "timm/levit_128s",
    "timm/coat_lite_tiny",
    "timm/swinv2_cr_tiny_224",
    "timm/tf_efficientnet_lite0",
]
SIZES = [(1, 1), (7, 5), (97, 131), (1, 200), (225, 301)]


@pytest.mark.parametrize("name", sampled(NETWORKS, ["swin_t"]))
def test_images_of_any_size(name: str) -> None:
    model = de.DenseModel(name, weights=None, out_channels=2, out_size=None).eval()
    with torch.no_grad():
        for size in SIZES:
            logits = model(torch.rand(1, 3, *size))
            assert logits.shape == (1, 2, *size) and torch.isfinite(logits).all()


def test_nearest_by_hand() -> None:
    assert InputRule().nearest((97, 131)) == (97, 131)
    assert InputRule(32).nearest((97, 131)) == (96, 128)
    assert InputRule(32).nearest((112, 15)) == (128, 32)
    assert InputRule(32, smallest=75).nearest((1, 1)) == (96, 96)
    assert InputRule(fixed=(224, 224)).nearest((1, 999)) == (224, 224)
    assert [str(rule) for rule in (InputRule(), InputRule(32), InputRule(1, 75), InputRule(fixed=(224, 224)))] == [
        "any size",
        "multiples of 32",
        "any size from 75",
        "only 224x224",
    ]


def test_the_most_general_rule() -> None:
    assert find_rule(lambda size: True, ()) == InputRule()
    assert find_rule(lambda size: size[0] % 14 == 0 and size[1] % 14 == 0, ()) == InputRule(14)
    assert find_rule(lambda size: size == (224, 224), [(224, 224)]) == InputRule(fixed=(224, 224))
    assert find_rule(lambda size: False, [(224, 224)]) is None
    assert with_smallest(InputRule(), lambda size: min(size) >= 63) == InputRule(1, 64)
    assert with_smallest(InputRule(fixed=(224, 224)), lambda size: False) == InputRule(fixed=(224, 224))


def test_the_most_general_rule_above_a_size() -> None:
    def runs(size: tuple[int, int]) -> bool:
        return min(size) >= 90 and size[0] % 32 == size[1] % 32 == 0

    assert find_rule_above(runs, [(64, 64), (96, 96), (224, 224)]) == InputRule(32, 96)
    assert find_rule_above(lambda size: min(size) >= 90, [(64, 64), (96, 96)]) == InputRule(1, 96)
    assert find_rule_above(lambda size: False, [(96, 96)]) is None


def test_a_vision_transformer_at_its_pretrained_size_equals_torchvision() -> None:
    torch.manual_seed(0)
    whole = vit_b_32(weights=None).eval()
    for p in whole.parameters():
        torch.nn.init.normal_(p, std=0.02) if p.ndim > 1 else None
    resampling = ResamplingTransformer(whole)
    assert set(resampling.state_dict()) == set(whole.state_dict())
    x = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(resampling(x), whole(x))
        before: list[torch.Tensor] = []
        hook = whole.encoder.layers[3].register_forward_hook(lambda *given: before.append(given[2]))
        whole(x)
        hook.remove()
        (result,) = resampling.forward_intermediates(x, [3])
        torch.testing.assert_close(result.flatten(2).transpose(1, 2), before[0][:, 1:])


def test_position_embeddings_are_resampled_as_an_image() -> None:
    """Embeddings that are linear in the row stay linear, with the same mean of both ends."""
    small = VisionTransformer(image_size=64, patch_size=8, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=8)
    rows = torch.arange(8.0).repeat_interleave(8)
    with torch.no_grad():
        small.encoder.pos_embedding[0, 1:] = rows[:, None]
    positions = ResamplingTransformer(small)._positions(16, 5).detach()[0, 1:, 0].view(16, 5)
    torch.testing.assert_close(positions, positions[:, :1].expand(-1, 5))
    steps = positions[4:13, 0].diff()
    torch.testing.assert_close(steps, torch.full_like(steps, 0.5), atol=1e-3, rtol=0)
    assert positions.mean().item() == pytest.approx(3.5, abs=1e-3)
