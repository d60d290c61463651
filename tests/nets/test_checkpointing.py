"""Gradient checkpointing: the same gradients with fewer stored tensors; separating nodes by hand."""

import pytest
import torch
from sampled import sampled
from torch import Tensor, fx, nn

import densemble as de
from densemble.nets.checkpointing import SegmentedRun, separating

NETWORKS = ["resnet18", "densenet121", "squeezenet1_1", "googlenet", "timm/tf_efficientnet_lite0"]


def gradients(model: de.DenseModel, images: Tensor) -> tuple[dict[str, Tensor], int]:
    """Gradients, and the bytes that autograd stores for them."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(images).square().mean()
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}, sum(kept.values())


@pytest.mark.parametrize(
    "name",
    sampled(
        [*NETWORKS, "timm/vit_tiny_patch16_224", "timm/resnet26d"],
        ["resnet18"],
    ),
)
def test_the_same_gradients_for_less_memory(name: str) -> None:
    model = de.DenseModel(name, weights=None, min_size=(3, 4), head="skip").train()
    for module in model.modules():
        if isinstance(module, nn.Dropout | nn.modules.batchnorm._BatchNorm):
            module.eval()  # statistics that are still gathered would see the batch twice
    images = torch.rand(2, 3, 96, 128)
    plain, kept = gradients(model, images)
    model.backbone.checkpoint_gradients()
    again, kept_less = gradients(model, images)
    assert plain.keys() == again.keys() and len(plain) > 10
    for key, expected in plain.items():
        torch.testing.assert_close(again[key], expected, rtol=1e-4, atol=1e-7)
    assert kept_less < 0.75 * kept


def test_no_segment_starts_from_an_overwritten_tensor() -> None:
    """SqueezeNet's activations work in place: the output of a convolution is lost before its segment is recomputed."""
    model = de.DenseModel("squeezenet1_1", weights=None, min_size=(3, 4), head="upsample").train()
    nodes = {node.name: node for node in model.backbone.network.graph.nodes}
    segments = SegmentedRun(model.backbone.network).segments
    modules = dict(model.backbone.network.named_modules())
    starts = [str(segment[0].target) for segment in segments[1:]]
    assert len(segments) >= 3 and not any(getattr(modules[start], "inplace", False) for start in starts)
    assert any(getattr(modules.get(str(node.target)), "inplace", False) for node in nodes.values())


def test_without_gradients_nothing_changes() -> None:
    model = de.DenseModel("resnet18", weights=None).eval()
    images = torch.rand(1, 3, 96, 128)
    with torch.no_grad():
        expected = model(images)
        model.backbone.checkpoint_gradients()
        assert torch.equal(model(images), expected)


def test_separating_by_hand() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.ReLU(), nn.ReLU(), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            start = self.a(x)
            return self.c(start + self.b(start))

    graph = fx.symbolic_trace(Residual()).graph
    assert {node.name for node in separating(graph)} == {"x", "a", "add", "c"}
