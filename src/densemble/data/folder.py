"""FolderData: a folder of images and targets, and the settings to read it."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any, Unpack

from densemble.config import make_data_options
from densemble.data.class_order import (
    label_map_by_name,
    named_label_map,
    numbers_by_name,
    plain_label_map,
    reordered,
)
from densemble.data.color_map import ColourMap, make_color_map
from densemble.data.facts import labels_above, task_facts
from densemble.data.folder_html import folder_html
from densemble.data.layouts import Layout, Sample, find_layout
from densemble.data.layouts.class_names import require_distinct
from densemble.data.leave_out import require_pairs, with_incomplete, without
from densemble.data.mask_values import MaskValues, find_mask_values
from densemble.data.read_pairs import Reading
from densemble.data.renumbering import renumbered
from densemble.data.splits import make_splits, stratum_of
from densemble.data_options import (
    READING,
    SPLITTING,
    DataOptions,
    SplitOptions,
    described,
    keyword_parameters,
    reading_options,
)
from densemble.errors import DataError
from densemble.input_files import expanded
from densemble.metrics.multilabel import IGNORED
from densemble.shapes import Array
from densemble.storage import images as codec
from densemble.tasks import TASKS, Task, make_task, require_task
from densemble.tasks.class_settings import HIGHEST_LABEL, default_ignore_index
from densemble.tasks.task import TargetKind

_POSITIONAL = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in ("path", "task")]
_DEFAULTS: Mapping[str, Any] = make_data_options({})


class FolderData:
    """A folder of images and targets for one task.

    Args:
        path: a folder, a CSV of pairs, or a zip; docs/reference/data.md describes the layouts.
        task: key of ``TASKS``.
        options: options of :class:`DataOptions`; the section ``data`` of run.yaml has the same options.

    Raises:
        DataError: there are no images, files have no partner, or ``classes`` do not match those of the folder.
        UsageError: the task does not exist, or an option is unknown or invalid.
    """

    # Notebooks read docstring and signature at run time; editors use DataOptions.
    __doc__ = f"{__doc__}\n    Options:\n{described()}\n"
    __signature__ = Signature([*_POSITIONAL, *keyword_parameters()])

    def __init__(self, path: str | Path, task: str, **options: Unpack[DataOptions]) -> None:
        self.options = given = make_data_options(options)
        ignored = given["ignore_index"]
        if ignored is not None and not 0 <= ignored <= HIGHEST_LABEL:  # the cache cannot store this label
            given["label_map"], given["ignore_index"] = {**(given["label_map"] or {}), ignored: IGNORED}, IGNORED
        self.path = expanded(path)
        self.task_name = require_task(task)
        layout = find_layout(self.path)
        layout = with_incomplete(layout) if given["absent_is_empty"] else layout
        if not given["skip_unpaired"]:
            require_pairs(layout)
        self.color_map: ColourMap | None = layout.color_map
        self.color_names: tuple[str, ...] = ()
        if given["color_map"] is not None:
            self.color_map, self.color_names = make_color_map(given["color_map"], layout.path)
        self._names_in_files = self._find_class_names(layout, given["classes"])
        self.classes = given["classes"] or (list(self._names_in_files) if self._names_in_files else None)
        require_distinct(self.classes or (), "data.classes" if given["classes"] else self.path)
        default = default_ignore_index(len(self.classes or ()))
        self.ignore_index = next(v for v in (given["ignore_index"], layout.ignore_index, default) if v is not None)
        self.scale = given["scale"]
        self.heat_max_is_given = given["heat_max"] is not None
        below = given["invalid_below"]
        self.invalid_below = TASKS[task].default_invalid_below if below == "auto" else below
        self.reading = self._make_reading(layout)
        self._settled, self._ignored_by_format = False, layout.ignore_index
        self.layout = without(self._with_splits(layout), given["leave_out"], self.path)
        self._task: Task | None = None

    def _find_class_names(self, layout: Layout, requested: list[str] | None) -> tuple[str, ...] | None:
        """Names of the classes in the order of the numbers in the files, if colour map or layout name them."""
        names = self.color_names or layout.classes
        if names and layout.default_classes and not self.color_names and requested and len(requested) != len(names):
            return None  # the data set has other classes than the usual ones of its format
        return names

    def _make_reading(self, layout: Layout) -> Reading:
        given, names, requested = self.options, self._names_in_files, self.options["classes"]
        task = TASKS[self.task_name]
        kind = task.target_kind_for(given["heatmap"])
        # Drawn regions have class numbers, like label maps. For other masks, data.label_map defines what values mean.
        self._has_class_numbers = kind == "labels" or (
            kind == "masks" and any(sample.drawing for samples in layout.splits.values() for sample in samples)
        )
        order = None
        if self._has_class_numbers:
            label_map = label_map_by_name(
                layout, names, requested, given["label_map"], self.ignore_index, kind == "masks"
            )
        else:
            label_map = plain_label_map(given["label_map"] or {}, (), (), self.path) or None
            if "classes" in task.choices() and names and requested:
                order = reordered(None, numbers_by_name(requested, names, self.path, None, kind == "masks"))
        return Reading(
            kind=kind,
            planes=task.planes,
            classes=tuple(self.classes) if self.classes else None,
            channels=len(names or ()) if order is not None else len(self.classes) if self.classes else 1,
            ignore_index=self.ignore_index,
            label_map=label_map,
            mask_values=MaskValues(),
            order=order,
            color_map=self.color_map,
            options=reading_options(given),
        )

    def _with_splits(self, layout: Layout) -> Layout:
        """The layout with its splits; ``val_from_train`` takes new validation samples from the training samples."""
        layout, share = self._with_train_and_val(layout), self.options["val_from_train"]
        if share is None or layout.splits.get("test") or not layout.splits.get("train"):
            return layout
        given: SplitOptions = self.options
        options: SplitOptions = {**given, "val_fraction": share, "test_fraction": 0.0, "folds": None}
        stratum = partial(stratum_of, self.reading) if options["stratify"] else None
        parts = make_splits(layout.splits["train"], options, stratum)
        return replace(layout, splits={"test": layout.splits.get("val", ()), **parts})

    def _with_train_and_val(self, layout: Layout) -> Layout:
        """The layout with train and val, which are drawn if the folder has none or if folds are requested."""
        options: SplitOptions = self.options
        stratum = None
        if options["stratify"]:
            self.settle(layout)
            stratum = partial(stratum_of, self.reading)
        if "all" in layout.splits:
            return replace(layout, splits=make_splits(layout.splits["all"], options, stratum), split_by="seed")
        if options["folds"] is None and ("val" in layout.splits or not layout.splits.get("train")):
            return layout
        kept = {}
        if "test" in layout.splits:
            kept = {"test": layout.splits["test"]}
            options = {**options, "test_fraction": 0.0}
        pool = [sample for name in ("train", "val") for sample in layout.splits.get(name, ())]
        return replace(layout, splits={**kept, **make_splits(pool, options, stratum)}, split_by="seed")

    def settle(self, layout: Layout | None = None) -> dict[str, Any]:
        """Makes the reading decisions that need all files of the data set; required before any target is read.

        Args:
            layout: its files are used; default: the layout of this folder.

        Returns:
            The decisions as keys of ``data`` in run.yaml; empty if there are none.
        """
        if not self._settled:
            self._settled = True
            self._settle([sample for samples in (layout or self.layout).splits.values() for sample in samples])
        return {"heat_max": self.reading.options["heat_max"]} if self.reading.options["heat_max"] else {}

    def _settle(self, samples: Sequence[Sample]) -> None:
        self.reading = self.reading.decided(samples)
        self.options["heat_max"] = self.reading.options["heat_max"] or None
        if self.reading.kind == "masks" and not self._has_class_numbers and not self.reading.label_map:
            self.reading = replace(self.reading, mask_values=find_mask_values(samples))
        if self.ignored_by_default and self.classes is None and labels_above(IGNORED, samples, self.reading):
            self.ignore_index = HIGHEST_LABEL
            self.reading = replace(self.reading, ignore_index=HIGHEST_LABEL)

    @property
    def ignored_by_default(self) -> bool:
        """Whether neither the options nor the format set the ignored label."""
        given = (self.options["ignore_index"], self._ignored_by_format)
        return self.reading.kind == "labels" and given == (None, None)

    @property
    def said(self) -> dict[str, Any]:
        """The reading options without defaults, as plain values that are valid for other folders of the same format."""
        kept = (*READING, *SPLITTING) if self.layout.split_by == "seed" else READING
        options: dict[str, Any] = {k: v for k, v in self.options.items() if k in kept and v != _DEFAULTS[k]}
        if self.options["color_map"] is not None and self.color_map is not None:
            options["color_map"] = {
                name: [list(colour) for colour, label in self.color_map.items() if label == number]
                for number, name in enumerate(self.color_names)
            }
        if "label_map" in options:
            names = self._names_in_files if self._has_class_numbers else ()
            options["label_map"] = named_label_map(options["label_map"], names, names and self.classes, self.path)
        return options

    def numbered_as(self, task: Task) -> "FolderData":
        """This data set with the class numbers and the ignored label of a task: classes are matched by name.

        Raises:
            DataError: only the task or only this data set has a class.
        """
        described = task.describe()
        names, ignored = described.get("classes"), described.get("ignore_index", self.ignore_index)
        if names is None or task.name != self.task_name or (names == self.classes and ignored == self.ignore_index):
            return self
        other, reading = copy.copy(self), self.reading
        if self.ignored_by_default and self.ignore_index < len(names):  # this number is a class of the task
            reading = replace(reading, ignore_index=ignored)
        other.classes, other.ignore_index, other._task = list(names), ignored, None
        other.reading = renumbered(reading, self.path, names, ignored, self._has_class_numbers)
        return other

    @property
    def kind(self) -> TargetKind:
        """Kind of the targets."""
        return self.reading.kind

    @property
    def train(self) -> tuple[Sample, ...]:
        """Training samples."""
        return self.split("train")

    @property
    def val(self) -> tuple[Sample, ...]:
        """Held-out samples, used for selection."""
        return self.split("val")

    def split(self, name: str) -> tuple[Sample, ...]:
        """Samples of a split.

        Raises:
            DataError: the split does not exist, or is empty.
        """
        samples = self.layout.splits.get(name, ())
        if not samples:
            others = ", ".join(key for key, value in self.layout.splits.items() if value)
            raise DataError(f"'{self.path}' has no {name} images; splits with images: {others or 'none'}")
        return samples

    @property
    def task(self) -> Task:
        """The task with the facts from the training targets: the number of classes, the scale of the values."""
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
        """C of the first readable image; all images must have the same C.

        Raises:
            DataError: no image is readable.
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
        """The image ``(H, W, C)``: uint8, uint16, or float32 in the values of the file."""
        return self.reading.image(sample)

    def unit_image(self, sample: Sample) -> Array:
        """The image as float32 ``(H, W, C)`` in [0, 1]."""
        return codec.as_unit(self.read_image(sample), self.reading.options["image_range"])

    def read_target(self, sample: Sample) -> Array:
        """The target in the terms of the task; see ``Task.target_kind``.

        Raises:
            DataError: the target is unreadable, or has labels outside the classes.
        """
        self.settle_channels()
        return self.reading.target(sample)

    def settle_channels(self) -> None:
        """Makes the decisions that need all targets: the value of heat that becomes 1, the number of channels.

        Raises:
            DataError: the training targets do not determine the number of channels.
        """
        self.settle()
        if self.reading.planes and self.classes is None:
            _ = self.task

    def read_points(self, sample: Sample) -> Array | None:
        """Fixations as bool ``(H, W)``; ``None`` if the sample has none."""
        return None if sample.points is None else codec.read_points(sample.points)

    def read_pair(self, sample: Sample) -> tuple[Array, Array]:
        """Image and target of the same size.

        Raises:
            DataError: a file is unreadable, or the sizes differ.
        """
        self.settle_channels()
        return self.reading.pair(sample)

    def _repr_html_(self) -> str:
        """Return the facts of the data set, and some images with their targets, as HTML, for notebooks."""
        return folder_html(self)

    def check(self) -> dict[str, Any]:
        """Reads all files once and reports all problems; see :func:`densemble.data.check.check`."""
        from densemble.data.check import check  # imported here because the check imports every format

        return check(self)
