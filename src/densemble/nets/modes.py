"""Temporary evaluation mode."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Put a module into eval mode inside the context and restore the mode of each submodule afterwards."""
    before = [(part, part.training) for part in module.modules()]
    try:
        if any(training for _, training in before):
            module.eval()
        yield
    finally:
        for part, training in before:  # parents first, because they change their children
            if part.training != training:
                part.train(training)  # graph modules hold one graph per mode
