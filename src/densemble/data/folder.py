"""FolderData: a folder of images and maps with what is needed to read it."""

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
    order_by_name,
    plain_label_map,
)
from densemble.data.color_map import ColourMap, make_color_map
from densemble.data.facts import labels_above, task_facts
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
from densemble.metrics.multilabel import IGNORED
from densemble.shapes import Array
from densemble.storage import images as codec
from densemble.tasks import TASKS, Task, make_task, require_task
from densemble.tasks.class_names import HIGHEST_LABEL, default_ignore_index
from densemble.tasks.task import TargetKind

_PLACES = [Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in ("path", "task")]
_DEFAULTS: Mapping[str, Any] = make_data_options({})


class FolderData:
    """A folder of images and maps for one task.

    Args:
        path: a folder, a CSV of pairs, or a zip; layouts: docs/reference/data.md.
        task: row of ``TASKS``.
        options: those of :class:`DataOptions`, which describes each; the section ``data`` of run.yaml has the same.

    Raises:
        DataError: no images, files without their partner, or ``classes`` that are not those of the folder.
        UsageError: no such task, or an option that is unknown or has a wrong value.
    """

    # Read by notebooks at run time; editors follow DataOptions.
    __doc__ = f"{__doc__}\n    Options:\n{described()}\n"
    __signature__ = Signature([*_PLACES, *keyword_parameters()])

    def __init__(self, path: str | Path, task: str, **options: Unpack[DataOptions]) -> None:
        self.options = given = make_data_options(options)
        ignored = given["ignore_index"]
        if ignored is not None and not 0 <= ignored <= HIGHEST_LABEL:  # no map can be kept with it
            given["label_map"], given["ignore_index"] = {**(given["label_map"] or {}), ignored: IGNORED}, IGNORED
        self.path = Path(path).expanduser()
        self.task_name = require_task(task)
        found = find_layout(self.path)
        found = with_incomplete(found) if given["absent_is_empty"] else found
        if not given["skip_unpaired"]:
            require_pairs(found)
        self.color_map, self.color_names = self._colours(found, given["color_map"])
        self._own_classes = self._names_in(found, given["classes"])
        self.classes = given["classes"] or (list(self._own_classes) if self._own_classes else None)
        require_distinct(self.classes or (), "data.classes" if given["classes"] else self.path)
        usual = default_ignore_index(len(self.classes or ()))
        self.ignore_index = next(v for v in (given["ignore_index"], found.ignore_index, usual) if v is not None)
        self.scale = given["scale"]
        self.heat_is_told = given["heat_max"] is not None
        below = given["invalid_below"]
        self.invalid_below = TASKS[task].default_invalid_below if below == "auto" else below
        self.reading = self._make_reading(found)
        self._settled, self._format_ignores = False, found.ignore_index
        self.layout = without(self._with_splits(found), given["leave_out"], self.path)
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
            options=reading_options(given),
        )

    def _with_splits(self, found: Layout) -> Layout:
        """The layout with train and val, which are drawn where the folder has none or folds are wanted."""
        options: SplitOptions = self.options
        stratum = None
        if options["stratify"]:
            self.settle(found)
            stratum = partial(stratum_of, self.reading)
        if "all" in found.splits:
            return replace(found, splits=make_splits(found.splits["all"], options, stratum), split_by="seed")
        if options["folds"] is None and ("val" in found.splits or not found.splits.get("train")):
            return found
        if "test" in found.splits:
            options = {**options, "test_fraction": 0.0}  # the folder's own test part is the one
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
        return {"heat_max": self.reading.options["heat_max"]} if self.reading.options["heat_max"] else {}

    def _settle(self, samples: Sequence[Sample]) -> None:
        self.reading = self.reading.decided(samples)
        self.options["heat_max"] = self.reading.options["heat_max"] or None
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
        kept = (*READING, *SPLITTING) if self.layout.split_by == "seed" else READING
        said: dict[str, Any] = {k: v for k, v in self.options.items() if k in kept and v != _DEFAULTS[k]}
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
            raise DataError(f"'{self.path}' has no {name} images; splits with images: {there or 'none'}")
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
        """C of the images: of the first one that can be read; all must have as many.

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
        """The image ``(H, W, C)``: uint8, uint16, or float32 in the file's own values."""
        return self.reading.image(sample)

    def unit_image(self, sample: Sample) -> Array:
        """The image as float32 ``(H, W, C)`` in [0, 1]."""
        return codec.as_unit(self.read_image(sample), self.reading.options["image_range"])

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
        """Image and map, of equal height and width.

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
