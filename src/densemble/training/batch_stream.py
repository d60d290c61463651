"""A CUDA stream on which one thread prepares batches for another thread."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor


class _Prepared(NamedTuple):
    """A batch, and the event after which its values are there."""

    batch: Any
    event: Any


class BatchStream:
    """Orders the work of a preparing thread and of the thread that takes its batches; without a GPU it does nothing."""

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]

    def prepared(self, batches: Iterator[Any]) -> Iterator[Any]:
        """Prepare batches on the stream; in the preparing thread."""
        if self._stream is None:
            yield from batches
            return
        with torch.cuda.stream(self._stream):
            for batch in batches:
                event = torch.cuda.Event()  # type: ignore[no-untyped-call]
                event.record(self._stream)
                yield _Prepared(batch, event)

    def taken(self, prepared: Any) -> Any:
        """Return a batch for the stream of the calling thread, which waits for it on the GPU."""
        if not isinstance(prepared, _Prepared):
            return prepared
        present = torch.cuda.current_stream()
        present.wait_event(prepared.event)
        for tensor in prepared.batch if isinstance(prepared.batch, list | tuple) else ():
            if isinstance(tensor, Tensor) and tensor.is_cuda:
                tensor.record_stream(present)  # its memory is not used again before the step has run
        return prepared.batch
