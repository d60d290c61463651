"""Record a function of one tensor for a fixed shape: as a CUDA graph on a GPU, as the function itself elsewhere.

A network of hundreds of small kernels is limited on a GPU by the time to launch them. A CUDA graph launches all of them
at once.
"""

from collections.abc import Callable
from contextvars import ContextVar
from functools import cache
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

WARM_UPS = 3
"""Calls before the recording, in which libraries select algorithms and allocate their working memory."""
_RECORDING: ContextVar[bool] = ContextVar("recording", default=False)
Output = TypeVar("Output")


class Recording(Generic[Output]):
    """A recorded function. It has its own copy of the input, and each call overwrites the output of the call before.

    While another function is recorded, a call runs the plain function, which so becomes a part of that recording.

    Args:
        function: called with a tensor of the shape of ``example``; must not wait for the device.
        example: input of the fixed shape.

    Raises:
        RuntimeError: the function waits for the device, or its memory is too small.
    """

    def __init__(self, function: Callable[[Tensor], Output], example: Tensor) -> None:
        self.shape = tuple(example.shape)
        self._function, self._input = function, example.clone()
        self._graph: Any = None
        if not example.is_cuda:
            return
        present, side = torch.cuda.current_stream(example.device), torch.cuda.Stream(example.device)  # type: ignore[no-untyped-call]
        side.wait_stream(present)
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                self._plain()
        present.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # Other threads decode images and allocate pinned memory meanwhile, which "global" would forbid.
        with torch.cuda.graph(graph, pool=_pool(str(example.device)), capture_error_mode="thread_local"):
            self._output = self._plain()
        self._graph = graph

    def __call__(self, images: Tensor) -> Output:
        """Return the output for an input on any device; the next call overwrites it."""
        if _RECORDING.get():
            return self._function(images)
        self._input.copy_(images, non_blocking=True)
        if self._graph is None:
            return self._plain()
        self._graph.replay()
        return self._output

    def _plain(self) -> Output:
        token = _RECORDING.set(True)
        try:
            return self._function(self._input)
        finally:
            _RECORDING.reset(token)


@cache
def _pool(device: str) -> Any:
    """Memory that all recordings on a device share: they run one after the other, on one stream."""
    with torch.cuda.device(device):
        return torch.cuda.graph_pool_handle()
