"""Joined networks against each network run separately."""

import torch
from torch import Tensor, nn

from densemble.inference.runtime.multi_output import MultiOutputNetwork


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x + 1, x + 2


def test_all_outputs_in_the_order_of_the_networks() -> None:
    layer, images = nn.Conv2d(3, 2, 3), torch.randn(2, 3, 8, 9)
    joined = MultiOutputNetwork([Pair(), layer])
    expected = (images + 1, images + 2, layer(images))
    torch.testing.assert_close(joined(images), expected, rtol=0, atol=0)
    exported = torch.export.export(joined.eval(), (images,)).module()
    torch.testing.assert_close(exported(images), expected, rtol=0, atol=0)
