"""FolderData: a folder of pictures and maps with what is needed to read it."""

import copy
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from densemble.data.class_order import (
    LabelMap,
    label_map_by_name,
    named_label_map,
    order_by_name,
    plain_label_map,
)
from densemble.data.color_map import ColourMap, Given, make_color_map
from densemble.data.facts import labels_above, task_facts
from densemble.data.heat_scale import HeatMax
from densemble.data.layouts import Layout, Sample, find_layout
from densemble.data.layouts.class_names import require_distinct
from densemble.data.leave_out import require_pairs, with_incomplete, without
from densemble.data.mask_values import MaskValues, find_mask_values
from densemble.data.reading import Reading
from densemble.data.renumbering import renumbered
from densemble.data.splits import SplitOptions, make_splits, stratum_of
from densemble.errors import DataError
from densemble.metrics.multilabel import IGNORED
from densemble.storage import images as codec
from densemble.tasks import TASKS, Task, make_task, require_task
from densemble.tasks.base import TargetKind
from densemble.tasks.classes import HIGHEST_LABEL, default_ignore_index

Array = np.ndarray[Any, Any]
_READING = (
    "absent_is_empty",
    "label_map",
    "scale",
    "bands",
    "heat_max",
    "image_range",
    "exif",
    "resize_targets",
    "heatmap",
    "sigma",
    "unit",
)
_DRAWING = ("val_fraction", "test_fraction", "group_by", "stratify", "folds", "fold", "seed")


class FolderData:
    """A folder of pictures and maps for one task.

    Args:
        path: a folder, a CSV of pairs, or a zip; layouts: docs/reference/data.md.
        task: row of ``TASKS``.
        classes: names of the classes or channels in the order of their numbers; default what the folder says, else
            counted in the maps. Where the folder says names too, numbers follow the names.
        ignore_index: label that is neither trained on nor scored; default what the format says, else 255, or 65535
            where 255 is a class.
        label_map: label in the files, or the name that the folder gives it -> class number or name.
        color_map: colours of colour-coded masks, see :func:`densemble.data.color_map.make_color_map`.
        scale: float targets are multiplied by it when read; 8-bit saliency maps are always read as 0..1.
        invalid_below: values up to this one are invalid; ``None``: only NaN and what the files declare; ``auto``: 0 for
            depth, ``None`` for regression.
        unit: of the values after the scale.
        heatmap: ``keypoints`` or ``density``: what the maps or points of a heatmap are.
        sigma: standard deviation of a drawn point, as a share of the picture's diagonal.
        bands: channels of the pictures that are used.
        heat_max: value of saliency and heatmaps that becomes 1; default: decided once from all maps.
        image_range: values of float pictures that become 0 and 1.
        exif: what a picture's EXIF orientation turns: ``auto``, ``image``, ``both``, ``ignore``.
        resize_targets: resize maps of another size to their picture's.
        absent_is_empty: where classes have folders of their own, a picture without a file in one shows nothing of it.
        skip_unpaired: leave out files without a partner instead of refusing the folder.
        leave_out: names or patterns of pairs to leave out, or a text file of them.
        val_fraction, test_fraction, group_by, stratify, folds, fold, seed: of the split, where the folder has none;
            ``folds`` splits again what the folder holds. See :class:`SplitOptions`.

    Raises:
        DataError: no pictures, files without their partner, or ``classes`` that are not those of the folder.
        UsageError: no such task.
    """

    def __init__(
        self,
        path: str | Path,
        task: str,
        *,
        classes: list[str] | None = None,
        ignore_index: int | None = None,
        label_map: LabelMap | None = None,
        color_map: str | Mapping[str, Given] | None = None,
        scale: float = 1.0,
        invalid_below: float | Literal["auto"] | None = "auto",
        unit: str = "",
        heatmap: str = "keypoints",
        sigma: float = 0.015,
        bands: list[int] | None = None,
        heat_max: HeatMax | None = None,
        image_range: tuple[float, float] | None = None,
        exif: str = "auto",
        resize_targets: bool = False,
        absent_is_empty: bool = False,
        skip_unpaired: bool = False,
        leave_out: list[str] | str | None = None,
        val_fraction: float = 0.2,
        test_fraction: float = 0.0,
        group_by: str | None = None,
        stratify: bool = False,
        folds: int | None = None,
        fold: int = 0,
        seed: int = 0,
    ) -> None:
        if ignore_index is not None and not 0 <= ignore_index <= HIGHEST_LABEL:  # no map can be kept with it
            label_map, ignore_index = {**(label_map or {}), ignore_index: IGNORED}, IGNORED
        given = {name: value for name, value in locals().items() if name not in ("self", "path", "task")}
        self.options: dict[str, Any] = given
        self.path = Path(path).expanduser()
        self.task_name = require_task(task)
        found = find_layout(self.path)
        found = with_incomplete(found) if absent_is_empty else found
        if not skip_unpaired:
            require_pairs(found)
        self.color_map, self.color_names = self._colours(found, color_map)
        self._own_classes = self._names_in(found, classes)
        self.classes = classes or (list(self._own_classes) if self._own_classes else None)
        require_distinct(self.classes or (), "data.classes" if classes else self.path)
        usual = default_ignore_index(len(self.classes or ()))
        self.ignore_index = next(v for v in (ignore_index, found.ignore_index, usual) if v is not None)
        self.scale = scale
        self.heat_is_told = heat_max is not None
        self.invalid_below = TASKS[task].default_invalid_below if invalid_below == "auto" else invalid_below
        self.reading = self._make_reading(found)
        self._settled, self._format_ignores = False, found.ignore_index
        self.layout = without(self._with_splits(found, folds is not None), leave_out, self.path)
        self._task: Task | None = None

    def _colours(self, found: Layout, given: Any) -> tuple[ColourMap | None, tuple[str, ...]]:
        if given is None:
            return found.color_map, ()
        return make_color_map(given, found.path)

    def _names_in(self, found: Layout, asked: list[str] | None) -> tuple[str, ...] | None:
        """Names of the classes as the files number them, where the task has classes and something says them."""
        own = self.color_names or found.classes
        if own and found.usual_classes and not self.color_names and asked and len(asked) != len(own):
            return None  # the format's usual classes are not those of this data set
        return own

    def _make_reading(self, found: Layout) -> Reading:
        given, own, asked = self.options, self._own_classes, self.options["classes"]
        task = TASKS[self.task_name]
        kind = task.kind_of(given["heatmap"])
        # Drawn regions are numbered as labels are; of other masks a label map says what their values mean.
        self._numbered = kind == "labels" or (
            kind == "masks" and any(sample.drawing for samples in found.splits.values() for sample in samples)
        )
        label_map, order = None, None
        if self._numbered:
            label_map = label_map_by_name(found, own, asked, given["label_map"], self.ignore_index, kind == "masks")
        else:
            label_map = plain_label_map(given["label_map"] or {}, (), (), self.path) or None
            if "classes" in task.choices():
                order = order_by_name(own, asked, self.path, kind == "masks")
        return Reading(
            kind=kind,
            planes=task.planes,
            classes=tuple(self.classes) if self.classes else None,
            channels=len(own or ()) if order is not None else len(self.classes) if self.classes else 1,
            ignore_index=self.ignore_index,
            label_map=label_map,
            mask_values=MaskValues(),
            order=order,
            color_map=self.color_map,
            scale=self.scale,
            bands=tuple(given["bands"]) if given["bands"] is not None else None,
            image_range=given["image_range"],
            exif=given["exif"],
            resize_targets=given["resize_targets"],
            sigma=given["sigma"],
            heat_max=given["heat_max"],
        )

    def _with_splits(self, found: Layout, again: bool) -> Layout:
        """The layout with train and val, which are drawn where the folder has none or folds are wanted."""
        given = self.options
        keys = ("val_fraction", "test_fraction", "seed", "group_by", "stratify", "folds", "fold")
        options = SplitOptions(**{key: given[key] for key in keys})
        stratum = None
        if given["stratify"]:
            self.settle(found)
            stratum = partial(stratum_of, self.reading)
        if "all" in found.splits:
            return replace(found, splits=make_splits(found.splits["all"], options, stratum), split_by="seed")
        if not again and ("val" in found.splits or not found.splits.get("train")):
            return found
        if "test" in found.splits:
            options = replace(options, test_fraction=0.0)  # the folder's own test part is the one
        pool = [sample for name in ("train", "val") for sample in found.splits.get(name, ())]
        drawn = make_splits(pool, options, stratum)
        return replace(
            found, splits={**{k: v for k, v in found.splits.items() if k == "test"}, **drawn}, split_by="seed"
        )

    def settle(self, found: Layout | None = None) -> dict[str, Any]:
        """Lets the reading know what only all files of a data set say together; whoever reads through it asks first.

        Args:
            found: whose files; default those that are used.

        Returns:
            The keys of ``data`` in run.yaml that say what was decided; empty where nothing had to be.
        """
        if not self._settled:
            self._settled = True
            self._settle([sample for part in (found or self.layout).splits.values() for sample in part])
        return {"heat_max": self.reading.heat_max} if self.reading.heat_max else {}

    def _settle(self, samples: Sequence[Sample]) -> None:
        self.reading = self.reading.decided(samples)
        self.options["heat_max"] = self.reading.heat_max or None
        if self.reading.kind == "masks" and not self._numbered and not self.reading.label_map:
            self.reading = replace(self.reading, mask_values=find_mask_values(samples))
        if self.ignored_by_default and self.classes is None and labels_above(IGNORED, samples, self.reading):
            self.ignore_index = HIGHEST_LABEL
            self.reading = replace(self.reading, ignore_index=HIGHEST_LABEL)

    @property
    def ignored_by_default(self) -> bool:
        """Whether nobody has said which label is ignored: neither the options nor the format."""
        return self.reading.kind == "labels" and self.options["ignore_index"] is None and self._format_ignores is None

    @property
    def said(self) -> dict[str, Any]:
        """What was said about reading, without defaults, as plain values that do for another folder of its kind."""
        parameters = inspect.signature(FolderData).parameters
        drawn = _DRAWING if self.layout.split_by == "seed" else ()
        said = {k: self.options[k] for k in (*_READING, *drawn) if self.options[k] != parameters[k].default}
        if self.options["color_map"] is not None and self.color_map is not None:
            said["color_map"] = {
                name: [list(colour) for colour, own in self.color_map.items() if own == number]
                for number, name in enumerate(self.color_names)
            }
        if "label_map" in said:
            names = self._own_classes if self._numbered else ()
            said["label_map"] = named_label_map(said["label_map"], names, names and self.classes, self.path)
        return said

    def numbered_as(self, task: Task) -> "FolderData":
        """This data set with the class numbers and the ignored label of a task: classes are matched by name.

        Raises:
            DataError: the task has classes that this data set has not, or the other way round.
        """
        described = task.describe()
        names, ignored = described.get("classes"), described.get("ignore_index", self.ignore_index)
        if names is None or task.name != self.task_name or (names == self.classes and ignored == self.ignore_index):
            return self
        other, reading = copy.copy(self), self.reading
        if self.ignored_by_default and self.ignore_index < len(names):  # that number is a class of the task
            reading = replace(reading, ignore_index=ignored)
        other.classes, other.ignore_index, other._task = list(names), ignored, None
        other.reading = renumbered(reading, self.path, names, ignored, self._numbered)
        return other

    @property
    def kind(self) -> TargetKind:
        """Of the maps."""
        return self.reading.kind

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
            self.settle()
            facts = task_facts(self)
            self._task = make_task({"name": self.task_name, **facts})
            if self.classes is None and "classes" in facts:
                self.reading = replace(self.reading, channels=len(facts["classes"]))
            elif "channels" in facts:
                self.reading = replace(self.reading, channels=facts["channels"])
        return self._task

    @property
    def channels(self) -> int:
        """C of the pictures: of the first one that can be read; all must have as many.

        Raises:
            DataError: none can be read.
        """
        first: DataError | None = None
        for sample in self.train:
            try:
                return int(self.read_image(sample).shape[2])
            except DataError as error:
                first = first or error
        assert first is not None
        raise first

    def read_image(self, sample: Sample) -> Array:
        """The picture ``(H, W, C)``: uint8, uint16, or float32 in the file's own values."""
        return self.reading.image(sample)

    def unit_image(self, sample: Sample) -> Array:
        """The picture as float32 ``(H, W, C)`` in [0, 1]."""
        return codec.as_unit(self.read_image(sample), self.reading.image_range)

    def read_target(self, sample: Sample) -> Array:
        """The map in the task's terms: see ``Task.target_kind``.

        Raises:
            DataError: unreadable, or labels outside the classes.
        """
        self._settle_reading()
        return self.reading.target(sample)

    def _settle_reading(self) -> None:
        """Lets the reading know what no single map says: the value of heat that becomes 1, the channels of points."""
        self.settle()
        if self.reading.planes and self.classes is None:
            _ = self.task

    def read_points(self, sample: Sample) -> Array | None:
        """Fixations as bool ``(H, W)``, where there are any."""
        return None if sample.points is None else codec.read_points(sample.points)

    def read_pair(self, sample: Sample) -> tuple[Array, Array]:
        """Picture and map, of equal height and width.

        Raises:
            DataError: unreadable, or of unequal sizes.
        """
        self._settle_reading()
        return self.reading.pair(sample)

    def check(self) -> dict[str, Any]:
        """Reads everything once and lists all problems; see :func:`densemble.data.check.check`."""
        from densemble.data.check import check  # only this needs it, and it knows every format

        report: dict[str, Any] = check(self)
        return report
