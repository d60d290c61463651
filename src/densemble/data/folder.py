"""FolderData: a folder of pictures and maps with what is needed to read it."""

from pathlib import Path
from typing import Any

import numpy as np

from densemble.data.check import check
from densemble.data.layouts import Layout, Sample, find_layout
from densemble.errors import DataError
from densemble.storage import images as codec
from densemble.tasks import Task, make_task, require_task

Array = np.ndarray[Any, Any]
_FAULTS_SHOWN = 5


class FolderData:
    """A folder of pictures and maps for one task.

    Args:
        path: ``DATA/{train,val[,test]}/{images,targets}/``, or ``DATA/{images,targets}/`` with a seeded split.
        task: row of ``TASKS``.
        classes: names of the classes (segmentation); default ``DATA/classes.txt``, else counted in the maps.
        ignore_index: label that is neither trained on nor scored.
        scale: float targets are multiplied by it when read; 8-bit saliency maps are always read as 0..1.
        invalid_below: regression targets up to this value are invalid; ``None``: only NaN is.
        val_fraction, seed: of the seeded split, where the folder has none.
        skip_unpaired: leave out files without a partner instead of refusing the folder.

    Raises:
        DataError: no pictures, or files without their partner.
        UsageError: no such task.
    """

    def __init__(
        self,
        path: str | Path,
        task: str,
        *,
        classes: list[str] | None = None,
        ignore_index: int = 255,
        scale: float = 1.0,
        invalid_below: float | None = 0.0,
        val_fraction: float = 0.2,
        seed: int = 0,
        skip_unpaired: bool = False,
    ) -> None:
        self.path = Path(path).expanduser()
        self.task_name = require_task(task)
        self.layout: Layout = find_layout(self.path, val_fraction, seed)
        self.ignore_index = ignore_index
        self.scale = scale
        self.invalid_below = invalid_below
        self._split_options = {"val_fraction": val_fraction, "seed": seed, "skip_unpaired": skip_unpaired}
        if self.layout.unpaired and not skip_unpaired:
            raise DataError(
                f"{len(self.layout.unpaired)} files in '{self.path}' have no partner of the same stem: "
                f"{some([str(file.relative_to(self.path)) for file in self.layout.unpaired])}; add the missing "
                "picture or map, or leave them out with --set data.skip_unpaired=true"
            )
        self.classes = classes or (list(self.layout.classes) if self.layout.classes else None)
        self._task: Task | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The arguments that open the same folder in the same way again, by name."""
        own = {key: getattr(self, key) for key in ("classes", "ignore_index", "scale", "invalid_below")}
        return {**own, **self._split_options}

    @property
    def train(self) -> tuple[Sample, ...]:
        """Samples to learn from."""
        return self.split("train")

    @property
    def val(self) -> tuple[Sample, ...]:
        """Held-out samples, to choose by."""
        return self.split("val")

    def split(self, name: str) -> tuple[Sample, ...]:
        """Samples of a split.

        Raises:
            DataError: there is no such split, or it is empty.
        """
        samples = self.layout.splits.get(name, ())
        if not samples:
            there = ", ".join(key for key, value in self.layout.splits.items() if value)
            raise DataError(f"'{self.path}' has no {name} pictures; splits with pictures: {there or 'none'}")
        return samples

    @property
    def task(self) -> Task:
        """The task with what the training maps say: how many classes, the scale of the values."""
        if self._task is None:
            self._task = make_task({"name": self.task_name, **self._facts()})
        return self._task

    def _facts(self) -> dict[str, Any]:
        if self.task_name == "segmentation":
            classes = self.classes or [str(label) for label in range(self._count_labels())]
            return {"classes": classes, "ignore_index": self.ignore_index}
        if self.task_name in ("regression", "depth"):
            return {"scale": self._typical_value(), "invalid_below": self.invalid_below, "file_scale": self.scale}
        return {}

    def _count_labels(self) -> int:
        highest = -1
        for sample in self.train:
            labels = codec.read_labels(sample.target)
            labels = labels[labels != self.ignore_index]
            highest = max(highest, int(labels.max(initial=-1)))
        if highest < 1:
            raise DataError(
                f"the training maps of '{self.path}' hold no label but 0 and {self.ignore_index}; masks of 0 and 255 "
                "need --set data.ignore_index=254 and labels 0 and 1"
            )
        return highest + 1

    def _typical_value(self) -> float:
        means = []
        for sample in self.train[:: max(1, len(self.train) // 50)]:
            values = self.read_target(sample)
            valid = np.isfinite(values) if self.invalid_below is None else values > self.invalid_below
            if valid.any():
                means.append(float(np.abs(values[valid]).mean()))
        if not means:
            raise DataError(
                f"no training map of '{self.path}' has a valid value; values up to {self.invalid_below} count as "
                "invalid: change that with --set data.invalid_below=null"
            )
        return float(np.mean(means)) or 1.0

    def read_image(self, sample: Sample) -> Array:
        """The picture, uint8 ``(H, W, 3)``."""
        return codec.read_image(sample.image)

    def read_target(self, sample: Sample) -> Array:
        """The map in the task's terms: saliency float32 in [0, 1], labels int64, regression float32 in its unit.

        Raises:
            DataError: unreadable, or labels outside the classes.
        """
        if self.task_name == "segmentation":
            return self._checked_labels(sample)
        values = codec.read_values(sample.target)
        if self.task_name != "saliency":
            return values * np.float32(self.scale)
        if not np.isfinite(values).all() or values.min(initial=0) < 0:
            raise DataError(f"saliency map '{sample.target}' holds negative or undefined values; save densities >= 0")
        peak = float(values.max(initial=0))
        limit = 1.0 if peak <= 1 else 255.0 if peak <= 255 else 65535.0
        return values / np.float32(max(limit, peak))

    def _checked_labels(self, sample: Sample) -> Array:
        labels = codec.read_labels(sample.target)
        if self.classes is not None:
            wrong = np.unique(labels[((labels < 0) | (labels >= len(self.classes))) & (labels != self.ignore_index)])
            if wrong.size:
                found = some([str(value) for value in wrong])
                raise DataError(
                    f"map '{sample.target}' has labels {found} outside the {len(self.classes)} classes "
                    f"0..{len(self.classes) - 1}; name more classes, or ignore one with "
                    f"--set data.ignore_index={wrong[0]}"
                )
        return labels

    def read_points(self, sample: Sample) -> Array | None:
        """Fixations as bool ``(H, W)``, where there are any."""
        return None if sample.points is None else codec.read_points(sample.points)

    def read_pair(self, sample: Sample) -> tuple[Array, Array]:
        """Picture and map, of equal size.

        Raises:
            DataError: unreadable, or of unequal sizes.
        """
        image, target = self.read_image(sample), self.read_target(sample)
        if image.shape[:2] != target.shape[:2]:
            raise DataError(
                f"'{sample.image}' is {image.shape[0]}x{image.shape[1]} but its map '{sample.target}' is "
                f"{target.shape[0]}x{target.shape[1]} (height x width); they must be equal: make the map again"
            )
        return image, target

    def check(self) -> dict[str, Any]:
        """Reads everything once and lists all problems; see :func:`densemble.data.check.check`."""
        return check(self)


def some(names: list[str]) -> str:
    """The first names and how many more there are."""
    shown = ", ".join(names[:_FAULTS_SHOWN])
    return f"{shown} and {len(names) - _FAULTS_SHOWN} more" if len(names) > _FAULTS_SHOWN else shown
