"""FLOPs equal counts by hand, and unknown operators that compute are reported."""

import pytest
import torch
from torch import nn

import densemble as de
from densemble.evaluation.benchmark.flops import count_work
from densemble.nets.heads import HEADS
from densemble.nets.rewrite import for_inference


def test_convolutions_by_hand() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, groups=4)
    ).eval()
    work = count_work(network, torch.rand(2, 3, 10, 12))
    first, second = 2 * 10 * 12 * 8 * 3 * 9, 2 * 3 * 4 * 8 * 2 * 9
    assert work.flops == 2 * (first + second)
    read = 2 * 3 * 10 * 12 + 8 * 3 * 9 + 8 + 2 * 8 * 5 * 6 + 8 * 2 * 9 + 8
    assert work.values == read + 2 * 8 * 10 * 12 + 2 * 8 * 3 * 4
    assert work.light["max_pool2d_with_indices"] == 1 and not work.unknown


def test_fused_attention_is_counted() -> None:
    length, width, hidden = 6, 16, 32
    layer = nn.TransformerEncoderLayer(width, 2, hidden, batch_first=True).eval()
    work = count_work(layer, torch.rand(1, length, width))
    multiplied = length * width * 3 * width + 2 * length * length * width + length * width * width
    multiplied += 2 * length * width * hidden
    assert work.flops == 2 * multiplied and not work.unknown
    assert torch.backends.mha.get_fastpath_enabled()


def test_unknown_operators_are_named() -> None:
    class Fourier(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.fft.rfft2(images).abs()

    work = count_work(Fourier(), torch.rand(1, 3, 8, 8))
    assert work.flops == 0 and work.unknown == {"_fft_r2c": 1}


@pytest.mark.parametrize("head", [name for name in HEADS if not name.startswith("smp-")])
def test_every_head_is_counted_as_a_whole(head: str) -> None:
    model = de.DenseModel("squeezenet1_1", weights=None, input_size=(48, 64), head=head).eval()
    plain, fewer = (count_work(network, torch.rand(1, 3, 48, 64)) for network in (model, for_inference(model)))
    assert not plain.unknown and not fewer.unknown and 0 < fewer.flops <= plain.flops
