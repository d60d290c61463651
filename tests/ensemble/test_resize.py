"""Maps at the size of their targets."""

import torch

from densemble.ensemble.resize import resize_to_target
from densemble.tasks import HeatmapTask, SaliencyTask


def test_a_density_keeps_its_sum_and_other_maps_their_values() -> None:
    target = torch.zeros(1, 8, 12)
    density, saliency = HeatmapTask(("cell",), mode="density"), SaliencyTask()
    maps = torch.full((2, 1, 4, 6), 0.5)
    assert torch.allclose(resize_to_target(maps, target, saliency), torch.full((2, 1, 8, 12), 0.5))
    resized = resize_to_target(maps, target, density)
    assert resized.shape == (2, 1, 8, 12)
    assert torch.allclose(resized.sum((1, 2, 3)), torch.tensor([12.0, 12.0]))
