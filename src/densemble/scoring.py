"""Evaluate: the Python API of scores, with an optional report."""

from collections.abc import Callable
from pathlib import Path

from densemble.data.folder import FolderData
from densemble.data.torch_dataset import TorchData
from densemble.ensemble.ensemble import Ensemble
from densemble.evaluation import scores
from densemble.inference.runtime.streamed import placed
from densemble.report.evaluation_page import evaluate_with_report


def evaluate(
    ensemble: Ensemble,
    data: FolderData | TorchData,
    split: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    *,
    report: str | Path | None = None,
    device: str = "auto",
) -> scores.Scores:
    """Score an ensemble and each of its members at the size of the targets.

    Args:
        ensemble: runs in eval mode; afterwards it is in the same mode as before.
        data: images and targets of the same task; classes are matched by name. A torch data set of (image, target), or
            a dict of such data sets by split, is written to a temporary folder, see :func:`store_dataset`; a single
            one is the split ``test``.
        split: ``train``, ``val`` or ``test``; default: ``test`` if the data has it, else ``val``.
        progress: called with (done, total) after every image.
        report: HTML file for images, scores, gains and errors; ``None``: no report.
        device: where to compute: ``cpu``, ``cuda``, ...; ``auto``: the GPU if there is one. The ensemble itself is not
            moved.

    Returns:
        ``{"task", "split", "images", METRIC: value..., "members": {name: {METRIC: value...}}}``; if the task has them,
        also ``reliability`` (bins of confidence), ``risk_coverage``, ``interval_coverage`` of values, and ``guarantee``
        with its measured coverage; ``without``: images for which some members returned no usable map.

    Raises:
        ArtifactError: a member returns no usable map of an image and the ensemble needs this member; the message
            contains the path of the image.
        DataError: no such split, files that cannot be used, or other classes than those of the ensemble.
        UsageError: ``report`` is a folder, or there is no such device.
        ResourceError: ``report`` cannot be written.
    """
    ensemble = placed(ensemble, device)
    if report is None:
        return scores.evaluate(ensemble, data, split, progress)
    return evaluate_with_report(ensemble, data, split, Path(report), progress)
