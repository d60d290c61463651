"""The plan of a training: an ignored class has no class weight and no loss."""

import numpy as np
import torch

from densemble.config import make_config
from densemble.data.decoded_cache import DecodedSplit
from densemble.engines.plan import trained_task
from densemble.tasks import SegmentationTask, balanced_weights


def test_an_ignored_class_does_not_change_the_balance_of_the_others() -> None:
    labels = np.repeat(np.array([0, 1, 2], np.uint8), [900, 80, 20]).reshape(1, 50, 20)
    split = DecodedSplit(np.zeros((1, 3, 50, 20), np.uint8), labels, ("a",))
    config = make_config({"task": "segmentation", "class_weights": "balanced", "members": ["resdeconv"]})
    weights = trained_task(SegmentationTask(("sky", "road", "car"), ignore_index=0), config, split).class_weights
    assert weights == balanced_weights([0, 80, 20]) == (1.0, 50 / 80, 50 / 20)


def test_the_ignored_class_is_not_trained_on() -> None:
    task = SegmentationTask(("sky", "road", "car"), ignore_index=0, loss_name="cross_entropy+dice+lovasz+focal")
    labels = torch.randint(0, 3, (2, 6, 8), generator=torch.Generator().manual_seed(0))
    logits = torch.randn(2, 3, 6, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(task.loss(logits, labels), logits)
    assert not gradient[(labels == 0)[:, None].expand_as(gradient)].any()
