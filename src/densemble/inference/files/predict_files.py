"""Prediction of many images: decoded ahead, computed in batches, written in the background, resumable.

Threads read and write, and the calling thread computes. Threads are used because decoding, resizing and compression
release the interpreter lock, and transferring an image from another process takes longer than decoding it. The queues
between the stages are bounded in images and in bytes, so that a folder needs no more memory than a few batches.
"""

import logging
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
from densemble.inference.drawing import as_rgb
from densemble.inference.failed_image import FailedImage
from densemble.inference.files.job import Output, Pace
from densemble.inference.files.journal import Finished, Journal
from densemble.inference.files.pipeline import Compute, FilePipeline, ReadImage, Seconds
from densemble.inference.image_prediction import ImagePrediction, at_image_size
from densemble.inference.saved import SavedPrediction
from densemble.inference.sources import Item
from densemble.shapes import Array

ONE_BY_ONE = Pace(batch=1, readers=0, writers=0)
"""One image in memory at a time, everything in the calling thread."""

log = logging.getLogger(__name__)


def predict_images(
    ensemble: Ensemble, items: Sequence[Item], compute: Compute, pace: Pace = ONE_BY_ONE
) -> Iterator[ImagePrediction | FailedImage]:
    """Predict images; yield predictions at the size of each image, in order.

    Images of equal size are computed together: neighbours, and others as long as few wait. An image that cannot be
    read or predicted fails without the others.

    Args:
        ensemble: defines how images are read and what maps mean; it is not run.
        items: images.
        compute: predicts a batch; called in this thread.
        pace: batch size and number of threads.
    """

    def finish(image: ReadImage, prediction: Prediction) -> ImagePrediction:
        return at_image_size(prediction, _rgb(image), items[image.index].name, image.path, ensemble)

    with _threads(pace.readers, "reader") as readers, _threads(pace.writers, "writer") as writers:
        yield from FilePipeline(ensemble, items, compute, finish, pace, Seconds()).run(readers, writers)


def predict_files(
    ensemble: Ensemble,
    items: Sequence[Item],
    compute: Compute,
    output: Output,
    pace: Pace,
    seconds: Seconds,
) -> Iterator[SavedPrediction | FailedImage]:
    """Predict images like :func:`predict_images`, and write the results into a folder.

    Images that an earlier run finished come first.

    Args:
        ensemble: see :func:`predict_images`.
        items: images with unique names.
        compute: see :func:`predict_images`.
        output: folder and kinds of files.
        pace: batch size and number of threads.
        seconds: the time of this thread is added: ``compute``; ``reading`` and ``writing``: waiting for images and for
            writers; ``wall``: everything.

    Raises:
        UsageError: names that are not unique, or a kind of file that the ensemble cannot give.
        ResourceError: results cannot be written.
    """
    if len({item.name for item in items}) < len(items):
        raise UsageError("every image needs a unique name; otherwise one would overwrite another")
    maps = output.maps(ensemble)

    def compute_on_cpu(images: Tensor) -> Prediction:
        return compute(images).only(maps).map(Tensor.cpu)

    with (
        seconds.of("wall"),
        Journal(output.folder, {**output.settings, "save": sorted(output.what), "rank_by": output.rank_by}) as journal,
        _threads(pace.readers, "reader") as readers,
        _threads(pace.writers, "writer") as writers,
    ):
        if journal.discarded:
            log.info(f"'{journal.path}' has another artifact or other settings: all images are predicted again")
        missing = []
        for item in items:
            if item.path is None or not journal.holds(item.path, item.name):
                missing.append(item)
                continue
            known = journal.finished[item.name]
            files = tuple(output.folder / file for file in known.files)
            yield SavedPrediction(item.name, item.path, files, known.unsure, known.without, earlier=True)

        def finish(image: ReadImage, prediction: Prediction) -> SavedPrediction:
            item = missing[image.index]
            result = at_image_size(prediction, _rgb(image), item.name, image.path, ensemble)
            files = tuple(result.save(output.folder, output.what, item.name))
            unsure = None if output.rank_by is None else result.unsureness(output.rank_by)
            if item.path is not None:
                names = tuple(file.name for file in files)
                source = str(item.path.absolute())
                journal.add(Finished(source, *image.state, item.name, names, unsure, dict(result.without)))
            return SavedPrediction(item.name, item.path, files, unsure, result.without)

        yield from FilePipeline(ensemble, missing, compute_on_cpu, finish, pace, seconds).run(readers, writers)


def _rgb(image: ReadImage) -> Array:
    return as_rgb(image.pixels[0].permute(1, 2, 0).numpy())


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
    if not count:
        yield _CallingThread()
        return
    pool = ThreadPoolExecutor(count, f"densemble-{role}")
    barrier, threads_of_caller = Barrier(count), torch.get_num_threads()

    def limit() -> None:
        # A pool of threads for each of them would compete with the threads of the networks. The first call of
        # get_num_threads copies the caller's setting; without it, that would later undo the setting made here.
        torch.get_num_threads()
        torch.set_num_threads(1)
        barrier.wait()

    try:
        for limited in [pool.submit(limit) for _ in range(count)]:
            limited.result()
        torch.set_num_threads(threads_of_caller)  # threads that are started later copy this setting
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
