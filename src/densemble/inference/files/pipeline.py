"""FilePipeline: images are read, computed and finished concurrently; results come in the order of the images."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.membership import UnusableMaps
from densemble.ensemble.prediction import Prediction
from densemble.errors import DataError, UsageError
from densemble.inference.compute import BatchPredictor
from densemble.inference.failed_image import FailedImage
from densemble.inference.files.job import Pace
from densemble.inference.files.journal import State, source_state
from densemble.inference.files.size_groups import SizeGroups
from densemble.inference.sources import Item
from densemble.storage.decoding_memory import kept_in_memory
from densemble.threads import started_threads

Compute = Callable[[Tensor], Prediction]
"""Images ``(B, C, H, W)`` in [0, 1] on the CPU -> their prediction, on any device.

Raises :class:`UnusableMaps` for images that cannot be predicted.
"""
Result = TypeVar("Result")
_MOST_BYTES = 1 << 30  # decoded images of all stages together


@dataclass
class Seconds:
    """Seconds of the calling thread, by activity."""

    spent: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("compute", "reading", "writing", "wall"), 0))

    @contextmanager
    def of(self, activity: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.spent[activity] += time.perf_counter() - started


@dataclass(frozen=True)
class ReadImage:
    """An image that was read.

    Attributes:
        index: index of its item.
        pixels: float ``(1, C, H, W)`` in [0, 1], or uint8 for a GPU, on the CPU.
        path: file of the image.
        state: state of the file when it was read, see :func:`source_state`.
    """

    index: int
    pixels: Tensor
    path: Path | None
    state: State


@dataclass
class FilePipeline(Generic[Result]):
    """Runs images through four stages: reading, waiting for others of equal size, finishing, waiting for earlier ones.

    Attributes:
        ensemble: defines how images are read; it is not run.
        items: the images.
        compute: predicts a batch; called in the calling thread.
        finish: makes the result from an image and its prediction as a batch of one; called in a writer.
        pace: batch size and number of threads.
        seconds: the time of the calling thread is added to it.
    """

    ensemble: Ensemble
    items: Sequence[Item]
    compute: Compute
    finish: Callable[[ReadImage, Prediction], Result]
    pace: Pace
    seconds: Seconds

    def __post_init__(self) -> None:
        self.reading: deque[tuple[int, Future[ReadImage]]] = deque()
        self.groups: SizeGroups[ReadImage] = SizeGroups(self.pace.batch, self.pace.most_waiting)
        self.writing: deque[tuple[ReadImage, Future[Result]]] = deque()
        self.launched: deque[tuple[list[ReadImage], Callable[[], Prediction]]] = deque()
        self.most_launched = self.compute.in_flight if isinstance(self.compute, BatchPredictor) else 1
        self.decoded_bytes, self.largest_bytes = 0, 0  # of all images in progress, of the largest image
        self.ended: dict[int, Result | FailedImage] = {}
        self.next_index = 0

    def run(self) -> Iterator[Result | FailedImage]:
        """Predict the images and yield their results in the order of the items."""
        with _threads(self.pace.readers, "reader") as readers, _threads(self.pace.writers, "writer") as writers:
            yield from self._run(readers, writers)

    def _run(self, readers: Executor, writers: Executor) -> Iterator[Result | FailedImage]:
        unread = deque(range(len(self.items)))
        while unread or self.reading or self.groups.waiting or self.launched:
            while unread and self._may_read():
                index = unread.popleft()
                self.reading.append((index, readers.submit(self._read, index)))
            if self.reading:
                self._predict(self._next_group(), writers)
            elif self.groups.waiting:
                self._predict(self.groups.oldest(), writers)
            elif self.launched:
                self._conclude(0, writers)
            else:  # images that are being written hold all the memory
                self._settle(len(self.writing) - 1)
            self._settle(self.pace.most_writing)
            yield from self._in_order()
        self._settle(0)
        yield from self._in_order()

    def _may_read(self) -> bool:
        """Whether one more image may be read; always true if there is no other."""
        if not self.decoded_bytes:
            return len(self.reading) < max(self.pace.readers, 1)
        expected = self.decoded_bytes + (len(self.reading) + 1) * self.largest_bytes
        return len(self.reading) < self.pace.most_reading and expected <= _MOST_BYTES

    def _read(self, index: int) -> ReadImage:
        item = self.items[index]
        with failing_alone(item):  # before reading, so that later changes count
            state = (0, 0) if item.path is None else source_state(item.path)
        with kept_in_memory(), failing_alone(item):
            return ReadImage(index, *item.read(self.ensemble), state)

    def _next_group(self) -> list[ReadImage]:
        """Add the next image to its group; return the group that is now complete, or an empty list."""
        index, future = self.reading.popleft()
        try:
            with self.seconds.of("reading"):
                image = future.result()
        except DataError as error:
            self._fail(index, str(error))
            return []
        except UsageError as error:
            self._fail(index, f"{self.items[index].where}: {error}")
            return []
        self.decoded_bytes += image.pixels.nbytes
        self.largest_bytes = max(self.largest_bytes, image.pixels.nbytes)
        return self.groups.add(image.pixels.shape, image)

    def _predict(self, group: list[ReadImage], writers: Executor) -> None:
        """Predict a group; an image that cannot be predicted fails without the others."""
        while group:
            try:
                self.launched.append((group, self._launch(group)))
                break
            except UnusableMaps as error:
                group = self._usable(group, error)
        self._conclude(self.most_launched - 1, writers)

    def _conclude(self, most: int, writers: Executor) -> None:
        """Hand results to the writers until at most ``most`` groups are being computed."""
        while len(self.launched) > most:
            group, wait = self.launched.popleft()
            try:
                with self.seconds.of("compute"):
                    prediction = wait()
            except UnusableMaps as error:
                self._predict(self._usable(group, error), writers)
                continue
            for number, image in enumerate(group):
                self._settle(self.pace.most_writing - 1)
                self.writing.append((image, writers.submit(self._finish, image, prediction[number])))

    def _finish(self, image: ReadImage, prediction: Prediction) -> Result:
        with failing_alone(self.items[image.index]):
            return self.finish(image, prediction)

    def _usable(self, group: list[ReadImage], error: UnusableMaps) -> list[ReadImage]:
        """Fail the images of an error; return the other images of the group."""
        failed = {image % len(group) for image in error.images}  # padding repeats the group
        for image in (group[number] for number in sorted(failed)):
            self.decoded_bytes -= image.pixels.nbytes
            self._fail(image.index, f"{self.items[image.index].where}: {error.told}")
        return [image for number, image in enumerate(group) if number not in failed]

    def _launch(self, group: list[ReadImage]) -> Callable[[], Prediction]:
        with self.seconds.of("compute"), torch.no_grad():
            images = torch.cat([image.pixels for image in group])
            if self.pace.pad:
                images = images[torch.arange(self.pace.batch) % len(group)]
            if isinstance(self.compute, BatchPredictor):
                return self.compute.launch(images)
            prediction = self.compute(images)
            return lambda: prediction

    def _settle(self, most: int) -> None:
        """Collect finished results; wait until at most ``most`` images are being finished."""
        while self.writing and (len(self.writing) > most or self.writing[0][1].done()):
            image, future = self.writing.popleft()
            try:
                with self.seconds.of("writing"):
                    self.ended[image.index] = future.result()
            except (DataError, UsageError) as error:
                self._fail(image.index, str(error))
            self.decoded_bytes -= image.pixels.nbytes

    def _fail(self, index: int, reason: str) -> None:
        item = self.items[index]
        self.ended[index] = FailedImage(item.name, item.path, reason)

    def _in_order(self) -> Iterator[Result | FailedImage]:
        while self.next_index in self.ended:
            self.next_index += 1
            yield self.ended.pop(self.next_index - 1)


@contextmanager
def failing_alone(item: Item) -> Iterator[None]:
    """Turn errors that concern one image into a DataError, so that the other images are predicted.

    Raises:
        DataError: the image needs more memory than there is, or its file vanished.
    """
    try:
        yield
    except (MemoryError, RecursionError, FileNotFoundError, PermissionError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataError(f"{item.where}: {type(error).__name__}: {reason}") from error


class _CallingThread(Executor):
    """Runs each function immediately in the thread that submits it."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments, **options))
        except Exception as error:  # raised by future.result()
            future.set_exception(error)
        return future


@contextmanager
def _threads(count: int, role: str) -> Iterator[Executor]:
    """Threads that compute on one core each; jobs that have not begun when the context ends are cancelled."""
    threads_of_caller = torch.get_num_threads()

    def limit() -> None:
        # A pool of threads for each of them would compete with the threads of the networks. The first call of
        # get_num_threads copies the caller's setting; without it, that would later undo the setting made here.
        torch.get_num_threads()
        torch.set_num_threads(1)

    pool = started_threads(count, f"densemble-{role}", limit)
    if pool is None:
        yield _CallingThread()
        return
    try:
        torch.set_num_threads(threads_of_caller)  # threads that are started later copy this setting
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
