"""Pictures on their way through reading, computing and writing."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.images import as_images
from densemble.ensemble.membership import UnusableMaps
from densemble.ensemble.prediction import Prediction
from densemble.errors import DataError, UsageError
from densemble.inference.batch_groups import Groups
from densemble.inference.batch_job import Job, Pace
from densemble.inference.batch_journal import Finished, Journal, source_state
from densemble.inference.batch_progress import Tally
from densemble.inference.picture import at_picture_size
from densemble.inference.predictor import read_picture, shown

Compute = Callable[[Tensor], Prediction]
"""Images ``(B, C, H, W)`` in [0, 1] on the CPU -> their prediction, on any device.

Raises :class:`UnusableMaps` for images that cannot be predicted.
"""

_MOST_BYTES = 1 << 30  # of decoded pictures, all stages together


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
class _Picture:
    place: int
    images: Tensor  # (1, C, H, W)
    state: tuple[int, int]


@dataclass
class Stages:
    """Pictures on their way: being read, waiting for others of their size, being written."""

    ensemble: Ensemble
    job: Job
    compute: Compute
    pace: Pace
    journal: Journal
    tally: Tally
    seconds: Seconds

    def __post_init__(self) -> None:
        self.maps = {"mean", "label", *self.job.uncertainty(self.ensemble.task)}
        if "guarantee" in self.job.what:
            self.maps |= {"included", "lower", "upper"}
        self.reading: deque[tuple[int, Future[_Picture]]] = deque()
        self.groups: Groups[_Picture] = Groups(self.pace.batch, self.pace.waiting)
        self.writing: deque[tuple[_Picture, Future[Mapping[str, str]]]] = deque()
        self.held, self.largest = 0, 0  # bytes of decoded pictures: of all in hand, of one

    def run(self, places: Sequence[int], readers: ThreadPoolExecutor, writers: ThreadPoolExecutor) -> None:
        """Predicts the pictures at these places."""
        unread = deque(places)
        while unread or self.reading or self.groups.waiting:
            while unread and self._may_read():
                place = unread.popleft()
                self.reading.append((place, readers.submit(self._read, place)))
            if self.reading:
                due = self._take()
            elif self.groups.waiting:
                due = self.groups.oldest()
            else:  # all the memory is held by pictures that are being written
                due = []
                self._settle(len(self.writing) - 1)
            if due:
                self._predict(due, writers)
            self._settle(self.pace.behind)
        self._settle(0)

    def _may_read(self) -> bool:
        """Whether one more picture may be read; one always may where there is no other."""
        if not self.held:
            return len(self.reading) < self.pace.readers
        expected = self.held + (len(self.reading) + 1) * self.largest
        return len(self.reading) < self.pace.ahead and expected <= _MOST_BYTES

    def _read(self, place: int) -> _Picture:
        path = self.job.pictures[place]
        state = source_state(path)  # before it is read: a change while it is read then counts as one
        return _Picture(place, as_images(read_picture(path, self.ensemble), self.ensemble.in_channels), state)

    def _take(self) -> list[_Picture]:
        """The next picture joins its group; the group that is due with it, or nothing."""
        place, future = self.reading.popleft()
        try:
            with self.seconds.of("reading"):
                picture = future.result()
        except DataError as error:
            self.tally.end(place, str(error))
            return []
        except UsageError as error:
            self.tally.end(place, f"'{self.job.pictures[place]}': {error}")
            return []
        self.held += picture.images.nbytes
        self.largest = max(self.largest, picture.images.nbytes)
        return self.groups.add(picture.images.shape, picture)

    def _predict(self, group: list[_Picture], writers: ThreadPoolExecutor) -> None:
        """Predicts a group; images that cannot be predicted fail by themselves."""
        while group:
            try:
                prediction = self._computed(group)
                break
            except UnusableMaps as error:
                failed = {image % len(group) for image in error.images}  # padding repeats the group
                for picture in (group[image] for image in sorted(failed)):
                    self.held -= picture.images.nbytes
                    self.tally.end(picture.place, f"'{self.job.pictures[picture.place]}': {error.told}")
                group = [picture for image, picture in enumerate(group) if image not in failed]
        for image, picture in enumerate(group):
            self._settle(self.pace.behind - 1)
            self.writing.append((picture, writers.submit(self._write, picture, prediction[image])))

    def _computed(self, group: list[_Picture]) -> Prediction:
        """The maps that are needed, on the CPU."""
        with self.seconds.of("compute"), torch.no_grad():
            images = torch.cat([picture.images for picture in group])
            if self.pace.pad:
                images = images[torch.arange(self.pace.batch) % len(group)]
            return self.compute(images).only(self.maps).map(Tensor.cpu)

    def _write(self, picture: _Picture, prediction: Prediction) -> Mapping[str, str]:
        """Writes an image's files; gives the members that it was predicted without."""
        path, name, by = self.job.pictures[picture.place], self.job.names[picture.place], self.job.rank_by
        whole = at_picture_size(prediction, shown(picture.images[0]), path.stem, path, self.ensemble)
        files = tuple(file.name for file in whole.save(self.job.out, self.job.what, name))
        unsure = None if by is None else whole.unsureness(by)
        self.journal.add(Finished(str(path.absolute()), *picture.state, name, files, unsure, dict(whole.without)))
        return whole.without

    def _settle(self, most: int) -> None:
        """Takes note of what is written; waits until at most so many pictures are being written."""
        while self.writing and (len(self.writing) > most or self.writing[0][1].done()):
            picture, future = self.writing.popleft()
            failure, without = None, None
            try:
                with self.seconds.of("writing"):
                    without = future.result()
            except (DataError, UsageError) as error:
                failure = str(error)
            self.held -= picture.images.nbytes
            self.tally.end(picture.place, failure, without)
