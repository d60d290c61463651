"""Options of a distillation, and the checks that they fit the ensemble and the data."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densemble.data.folder import FolderData
from densemble.data.trained_options import trained_options
from densemble.ensemble.ensemble import Ensemble
from densemble.errors import DataError, UsageError, unknown_name
from densemble.training.soft_targets import WEIGHTINGS, Weighting

HELD_OUT = 0.1
"""Share of the training pairs that the student is validated and calibrated on if the data has no test split."""


@dataclass(frozen=True, kw_only=True)
class DistillOptions:
    """Options of :func:`densemble.distill`.

    Attributes:
        unlabelled: folders, globs or files of images without targets; the student learns the ensemble's maps of them.
        label_share: share of the loss on the targets, 0 to 1, for the labelled images.
        weighting: weight of a pixel: ``uncertain`` counts pixels more where the members disagree, ``certain`` where
            they agree, ``equal`` counts all alike.
        baseline: also train the same network with the same settings on the targets alone, and report it.
    """

    unlabelled: tuple[str | Path, ...] = ()
    label_share: float = 0.5
    weighting: Weighting = "uncertain"
    baseline: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.label_share < 1:
            raise UsageError(
                f"label_share {self.label_share:g}: give a share from 0 to below 1; with 1 the student would learn "
                "nothing of the ensemble"
            )
        if self.weighting not in WEIGHTINGS:
            raise UsageError(unknown_name("weighting", self.weighting, WEIGHTINGS))


def open_data(ensemble: Ensemble, data: FolderData | str | Path, options: Mapping[str, Any]) -> FolderData:
    """Open a data set with the task, classes and reading options of an ensemble.

    If it has no test split, its validation pairs become the test split, on which the student is reported, and a share
    of the training pairs becomes the validation split.

    Args:
        ensemble: the teacher.
        data: a folder, or an open one of the same task.
        options: options of :class:`DataOptions` that override those of the ensemble.

    Raises:
        DataError: the data does not fit the ensemble.
        UsageError: the FolderData has another task.
    """
    task = ensemble.task
    if isinstance(data, FolderData):
        if data.task_name != task.name:
            raise UsageError(
                f"the data is opened for {data.task_name}, the ensemble predicts {task.name}; open it for {task.name}"
            )
        numbered = data.numbered_as(task)
        path, given = data.path, {**data.options, "classes": numbered.classes, "ignore_index": numbered.ignore_index}
    else:
        path, given = Path(data), trained_options(ensemble)
    values: dict[str, Any] = {**given, **options}
    share = values.pop("val_from_train", None) or HELD_OUT
    folder = FolderData(path, task.name, **values)
    if not folder.layout.splits.get("test"):
        folder = FolderData(path, task.name, **{**values, "val_from_train": share})
    _require_fitting(ensemble, folder)
    return folder


def _require_fitting(ensemble: Ensemble, data: FolderData) -> None:
    if data.channels != ensemble.in_channels:
        raise DataError(
            f"the images of '{data.path}' have {data.channels} channels, the ensemble takes {ensemble.in_channels}; "
            "select channels with --set data.bands=[0, 1, 2]"
        )
    if data.task.out_channels != ensemble.task.out_channels:
        raise DataError(
            f"the targets of '{data.path}' have {data.task.out_channels} channels, the maps of the ensemble "
            f"{ensemble.task.out_channels}; give the data that the ensemble was trained for"
        )
