"""Evaluation mode for a while, whatever mode a network is in."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Puts a module into eval mode and afterwards each of its parts into the mode that it was in.

    Batch statistics are then neither used nor changed, and nothing is dropped out.
    """
    before = [(part, part.training) for part in module.modules()]
    try:
        if any(training for _, training in before):
            module.eval()
        yield
    finally:
        for part, training in before:  # parents first: they change the mode of all that is in them
            if part.training != training:
                part.train(training)  # graphs have one for each mode
