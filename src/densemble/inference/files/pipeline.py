"""Images on their way through reading, computing and finishing, and out in the order in which they came."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor

from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.membership import UnusableMaps
from densemble.ensemble.prediction import Prediction
from densemble.errors import DataError, UsageError
from densemble.inference.failed_image import FailedImage
from densemble.inference.files.job import Pace
from densemble.inference.files.journal import source_state
from densemble.inference.files.size_groups import Groups
from densemble.inference.sources import Item

Compute = Callable[[Tensor], Prediction]
"""Images ``(B, C, H, W)`` in [0, 1] on the CPU -> their prediction, on any device.

Raises :class:`UnusableMaps` for images that cannot be predicted.
"""
Result = TypeVar("Result")
_MOST_BYTES = 1 << 30  # of decoded images, all stages together


@dataclass
class Seconds:
    """Of the calling thread, by what it did."""

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
        place: number of its item.
        pixels: float ``(1, C, H, W)`` in [0, 1], on the CPU.
        path: the file that they come from.
        state: of the file when it was read, see :func:`source_state`.
    """

    place: int
    pixels: Tensor
    path: Path | None
    state: tuple[int, int]


@dataclass
class FilePipeline(Generic[Result]):
    """Images on their way: being read, waiting for others of their size, being finished, waiting for those before them.

    Attributes:
        ensemble: says how images are read; it is not run.
        items: the images.
        compute: predicts a batch; called in the calling thread.
        finish: makes the result of an image and its prediction as a batch of one; called in a writer.
        pace: how many at once.
        seconds: the calling thread's are added to it.
    """

    ensemble: Ensemble
    items: Sequence[Item]
    compute: Compute
    finish: Callable[[ReadImage, Prediction], Result]
    pace: Pace
    seconds: Seconds

    def __post_init__(self) -> None:
        self.reading: deque[tuple[int, Future[ReadImage]]] = deque()
        self.groups: Groups[ReadImage] = Groups(self.pace.batch, self.pace.waiting)
        self.writing: deque[tuple[ReadImage, Future[Result]]] = deque()
        self.held, self.largest = 0, 0  # bytes of decoded images: of all in work, of one
        self.ended: dict[int, Result | FailedImage] = {}
        self.given = 0

    def run(self, readers: Executor, writers: Executor) -> Iterator[Result | FailedImage]:
        """Predicts the images and gives their results in the order of the items."""
        unread = deque(range(len(self.items)))
        while unread or self.reading or self.groups.waiting:
            while unread and self._may_read():
                place = unread.popleft()
                self.reading.append((place, readers.submit(self._read, place)))
            if self.reading:
                self._predict(self._take(), writers)
            elif self.groups.waiting:
                self._predict(self.groups.oldest(), writers)
            else:  # all the memory is held by images that are being written
                self._settle(len(self.writing) - 1)
            self._settle(self.pace.behind)
            yield from self._in_order()
        self._settle(0)
        yield from self._in_order()

    def _may_read(self) -> bool:
        """Whether one more image may be read; one always may where there is no other."""
        if not self.held:
            return len(self.reading) < max(self.pace.readers, 1)
        expected = self.held + (len(self.reading) + 1) * self.largest
        return len(self.reading) < self.pace.ahead and expected <= _MOST_BYTES

    def _read(self, place: int) -> ReadImage:
        item = self.items[place]
        state = (0, 0) if item.path is None else source_state(item.path)  # before it is read: a later change counts
        return ReadImage(place, *item.read(self.ensemble), state)

    def _take(self) -> list[ReadImage]:
        """The next image joins its group; the group that is due with it, or nothing."""
        place, future = self.reading.popleft()
        try:
            with self.seconds.of("reading"):
                image = future.result()
        except DataError as error:
            self._fail(place, str(error))
            return []
        except UsageError as error:
            self._fail(place, f"{self.items[place].where}: {error}")
            return []
        self.held += image.pixels.nbytes
        self.largest = max(self.largest, image.pixels.nbytes)
        return self.groups.add(image.pixels.shape, image)

    def _predict(self, group: list[ReadImage], writers: Executor) -> None:
        """Predicts a group; images that cannot be predicted fail by themselves."""
        while group:
            try:
                prediction = self._computed(group)
                break
            except UnusableMaps as error:
                failed = {image % len(group) for image in error.images}  # padding repeats the group
                for image in (group[number] for number in sorted(failed)):
                    self.held -= image.pixels.nbytes
                    self._fail(image.place, f"{self.items[image.place].where}: {error.told}")
                group = [image for number, image in enumerate(group) if number not in failed]
        for number, image in enumerate(group):
            self._settle(self.pace.behind - 1)
            self.writing.append((image, writers.submit(self.finish, image, prediction[number])))

    def _computed(self, group: list[ReadImage]) -> Prediction:
        with self.seconds.of("compute"), torch.no_grad():
            images = torch.cat([image.pixels for image in group])
            if self.pace.pad:
                images = images[torch.arange(self.pace.batch) % len(group)]
            return self.compute(images)

    def _settle(self, most: int) -> None:
        """Takes over what is finished; waits until at most so many images are being finished."""
        while self.writing and (len(self.writing) > most or self.writing[0][1].done()):
            image, future = self.writing.popleft()
            try:
                with self.seconds.of("writing"):
                    self.ended[image.place] = future.result()
            except (DataError, UsageError) as error:
                self._fail(image.place, str(error))
            self.held -= image.pixels.nbytes

    def _fail(self, place: int, reason: str) -> None:
        item = self.items[place]
        self.ended[place] = FailedImage(item.name, item.path, reason)

    def _in_order(self) -> Iterator[Result | FailedImage]:
        while self.given in self.ended:
            self.given += 1
            yield self.ended.pop(self.given - 1)
