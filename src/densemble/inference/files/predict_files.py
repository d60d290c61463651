"""Prediction of many images: decoded ahead, computed in batches, finished behind, and resumed where a run ended.

Threads read and write, the calling thread computes. Threads, not processes: decoding, resizing and compression release
the interpreter lock, and an image takes longer to come from another process than to decode. What lies between the
stages is bounded in images and in bytes, so that a folder needs no more memory than a few batches.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier
from typing import Any

import torch
from torch import Tensor

from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.prediction import Prediction
from densemble.errors import UsageError
from densemble.inference.failed_image import FailedImage
from densemble.inference.files.job import Output, Pace
from densemble.inference.files.journal import Finished, Journal
from densemble.inference.files.pipeline import Compute, FilePipeline, ReadImage, Seconds
from densemble.inference.image_prediction import ImagePrediction, at_image_size
from densemble.inference.saved import SavedPrediction
from densemble.inference.sources import Item, shown

ONE_BY_ONE = Pace(batch=1, readers=0, writers=0)
"""No more than one image in memory, everything in the calling thread."""


def predict_images(
    ensemble: Ensemble, items: Sequence[Item], compute: Compute, pace: Pace = ONE_BY_ONE
) -> Iterator[ImagePrediction | FailedImage]:
    """Predicts images; their predictions come at the images' own size, in order.

    Images of equal size are computed together: neighbours, and others as long as few wait. An image that cannot be
    read, or that a member gives no usable map of, fails alone.

    Args:
        ensemble: says how images are read and what maps mean; it is not run.
        items: images.
        compute: predicts a batch; called in this thread.
        pace: how many at once.
    """

    def finish(image: ReadImage, prediction: Prediction) -> ImagePrediction:
        name = items[image.place].name
        return at_image_size(prediction, shown(image.pixels[0]), name, image.path, ensemble)

    with _threads(pace.readers, "reader") as readers, _threads(pace.writers, "writer") as writers:
        yield from FilePipeline(ensemble, items, compute, finish, pace, Seconds()).run(readers, writers)


def predict_files(
    ensemble: Ensemble,
    items: Sequence[Item],
    compute: Compute,
    output: Output,
    pace: Pace,
    say: Callable[[str], None],
    seconds: Seconds,
) -> Iterator[SavedPrediction | FailedImage]:
    """Predicts images as :func:`predict_images` does and writes the results into a folder.

    Those that an earlier run finished come first.

    Args:
        ensemble: see :func:`predict_images`.
        items: images, each of another name.
        compute: see :func:`predict_images`.
        output: where to write, and what.
        pace: how many at once.
        say: takes the remark that earlier results do not count.
        seconds: of this thread: ``compute``; ``reading`` and ``writing``: waiting for images and for writers; ``wall``:
            all.

    Raises:
        UsageError: names that are not all different, or a kind of file that the ensemble cannot give.
        ResourceError: results cannot be written.
    """
    if len({item.name for item in items}) < len(items):
        raise UsageError("every image needs a name of its own, or one would overwrite another")
    maps = output.maps(ensemble)

    def computed(images: Tensor) -> Prediction:
        return compute(images).only(maps).map(Tensor.cpu)

    with (
        seconds.of("wall"),
        Journal(output.folder, {**output.asked, "save": sorted(output.what), "rank_by": output.rank_by}) as journal,
        _threads(pace.readers, "reader") as readers,
        _threads(pace.writers, "writer") as writers,
    ):
        if journal.discarded:
            say(f"'{journal.path}' is of another artifact or other settings: all images are predicted again")
        missing = []
        for item in items:
            if item.path is None or not journal.holds(item.path, item.name):
                missing.append(item)
                continue
            known = journal.finished[item.name]
            files = tuple(output.folder / file for file in known.files)
            yield SavedPrediction(item.name, item.path, files, known.unsure, known.without, earlier=True)

        def finish(image: ReadImage, prediction: Prediction) -> SavedPrediction:
            item = missing[image.place]
            whole = at_image_size(prediction, shown(image.pixels[0]), item.name, image.path, ensemble)
            files = tuple(whole.save(output.folder, output.what, item.name))
            unsure = None if output.rank_by is None else whole.unsureness(output.rank_by)
            if item.path is not None:
                names = tuple(file.name for file in files)
                source = str(item.path.absolute())
                journal.add(Finished(source, *image.state, item.name, names, unsure, dict(whole.without)))
            return SavedPrediction(item.name, item.path, files, unsure, whole.without)

        yield from FilePipeline(ensemble, missing, computed, finish, pace, seconds).run(readers, writers)


class _CallingThread(Executor):
    """Runs everything at once in the thread that submits it."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments, **options))
        except Exception as error:  # raised where the result is asked for
            future.set_exception(error)
        return future


@contextmanager
def _threads(count: int, role: str) -> Iterator[Executor]:
    """Threads that compute on one core each; what they have not begun when the context ends is given up."""
    if not count:
        yield _CallingThread()
        return
    pool = ThreadPoolExecutor(count, f"densemble-{role}")
    together, own = Barrier(count), torch.get_num_threads()

    def limit() -> None:
        # A pool of threads for each of them would fight with the networks' own. The first look at the number takes
        # over the caller's, and would later undo what is set here.
        torch.get_num_threads()
        torch.set_num_threads(1)
        together.wait()

    try:
        for limited in [pool.submit(limit) for _ in range(count)]:
            limited.result()
        torch.set_num_threads(own)  # also what threads that are started later take over
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
