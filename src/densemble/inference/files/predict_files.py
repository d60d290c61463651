"""Prediction of many images: decoded ahead, computed in batches, written in the background, resumable.

Threads read and write, and the calling thread computes. Threads are used because decoding, resizing and compression
release the interpreter lock, and transferring an image from another process takes longer than decoding it. The queues
between the stages are bounded in images and in bytes, so that a folder needs no more memory than a few batches.
"""

import logging
from collections.abc import Iterator, Sequence

from torch import Tensor

from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.prediction import Prediction
from densemble.errors import UsageError
from densemble.inference.drawing import as_rgb
from densemble.inference.failed_image import FailedImage
from densemble.inference.files.job import Output, Pace
from densemble.inference.files.journal import JOURNAL, Journal
from densemble.inference.files.json_lines import has_settings
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
        on_cpu = prediction.map(Tensor.cpu)
        return at_image_size(on_cpu, _rgb(image), items[image.index].name, image.path, ensemble)

    yield from FilePipeline(ensemble, items, compute, finish, pace, Seconds()).run()


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

    with (
        seconds.of("wall"),
        Journal(output.folder, output.all_settings) as journal,
    ):
        if journal.discarded:
            log.info(
                f"'{journal.path}' has another artifact or other settings: all images are predicted again; files "
                "of other images in the folder are not theirs"
            )
        missing = []
        for item in items:
            earlier = None if item.path is None else journal.find(item.path, item.name)
            if earlier is None or (output.records is not None and item.name not in output.records):
                missing.append(item)
            else:
                yield earlier

        def finish(image: ReadImage, prediction: Prediction) -> SavedPrediction:
            item = missing[image.index]
            needed = prediction.only(maps).map(Tensor.cpu)
            result = at_image_size(needed, _rgb(image), item.name, image.path, ensemble)
            files = tuple(result.save(output.folder, output.per_image, item.name, output.formats))
            rows = output.folder_formats
            output.add_records(
                item.name, {kind: result.record(row, output.folder, output.formats) for kind, row in rows.items()}
            )
            unsure = None if output.rank_by is None else result.unsureness(output.rank_by)
            saved = SavedPrediction(item.name, item.path, files, unsure, result.without)
            if item.path is not None:
                journal.add(saved, image.state)
            return saved

        yield from FilePipeline(ensemble, missing, compute, finish, pace, seconds).run()


def finished_items(items: Sequence[Item], output: Output) -> list[SavedPrediction]:
    """Return the results of an earlier run with the same settings if it finished all items, else an empty list."""
    if not has_settings(output.folder / JOURNAL, output.all_settings):
        return []
    with Journal(output.folder, output.all_settings) as journal:
        results = [None if item.path is None else journal.find(item.path, item.name) for item in items]
    found = [result for result in results if result is not None]
    return found if len(found) == len(items) else []


def _rgb(image: ReadImage) -> Array:
    return as_rgb(image.pixels[0].permute(1, 2, 0).numpy())
