"""FolderData: a folder of pictures and maps with what is needed to read it."""

import fnmatch
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from densemble.data.color_map import ColourMap, Given, make_color_map
from densemble.data.facts import task_facts
from densemble.data.heat_scale import HeatMax
from densemble.data.layouts import Layout, Sample, find_layout
from densemble.data.layouts.folders import composed
from densemble.data.reading import Reading, some
from densemble.data.splits import SplitOptions, make_splits
from densemble.errors import DataError
from densemble.storage import images as codec
from densemble.tasks import Task, make_task, require_task
from densemble.tasks.base import TargetKind

Array = np.ndarray[Any, Any]
IGNORE = 255
KINDS: dict[str, TargetKind] = {
    "saliency": "heat",
    "segmentation": "labels",
    "multilabel": "masks",
    "regression": "values",
    "depth": "values",
    "heatmap": "heat",
    "image": "pixels",
}
INVALID_BELOW = {"depth": 0.0}
"""Values up to these are invalid where nothing else is said: sensors write 0 for a depth that they do not know."""
_READING = (
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
WITH_PLANES = ("multilabel", "heatmap", "image")


class FolderData:
    """A folder of pictures and maps for one task.

    Args:
        path: a folder, a CSV of pairs, or a zip; layouts: docs/reference/data.md.
        task: row of ``TASKS``.
        classes: names of the classes or channels; default what the folder says, else counted in the maps.
        ignore_index: label that is neither trained on nor scored; default what the format says, else 255.
        label_map: label in the files -> class number.
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
        skip_unpaired: leave out files without a partner instead of refusing the folder.
        leave_out: names or patterns of pairs to leave out, or a text file of them.
        val_fraction, test_fraction, group_by, stratify, folds, fold, seed: of the split, where the folder has none;
            ``folds`` splits again what the folder holds. See :class:`SplitOptions`.

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
        ignore_index: int | None = None,
        label_map: dict[int, int] | None = None,
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
        self.options: dict[str, Any] = {
            "classes": classes, "ignore_index": ignore_index, "label_map": label_map, "color_map": color_map,
            "scale": scale, "invalid_below": invalid_below, "unit": unit, "heatmap": heatmap, "sigma": sigma,
            "bands": bands, "heat_max": heat_max, "image_range": image_range, "exif": exif,
            "resize_targets": resize_targets, "skip_unpaired": skip_unpaired, "leave_out": leave_out,
            "val_fraction": val_fraction, "test_fraction": test_fraction, "group_by": group_by, "stratify": stratify,
            "folds": folds, "fold": fold, "seed": seed,
        }  # fmt: skip
        self.path = Path(path).expanduser()
        self.task_name = require_task(task)
        found = find_layout(self.path)
        if found.unpaired and not skip_unpaired:
            raise DataError(
                f"{len(found.unpaired)} files in '{self.path}' have no partner of the same stem: "
                f"{some([_short(file, found.path) for file in found.unpaired])}; add the missing "
                "picture or map, or leave them out with --set data.skip_unpaired=true"
            )
        if found.doubled and not skip_unpaired:
            one, two = found.doubled[0]
            raise DataError(
                f"{len(found.doubled)} files in '{self.path}' have the same stem as another, as "
                f"'{_short(one, found.path)}' and '{_short(two, found.path)}'; pairs are matched by stem: rename or "
                "remove one"
            )
        self.color_map, named = self._colours(found, color_map)
        self.color_names = named
        self.classes = classes or (list(named) if named else None) or (list(found.classes) if found.classes else None)
        self.ignore_index = next(v for v in (ignore_index, found.ignore_index, IGNORE) if v is not None)
        self.scale = scale
        self.invalid_below = INVALID_BELOW.get(self.task_name) if invalid_below == "auto" else invalid_below
        self.reading = self._make_reading(found)
        self.layout = _without(self._with_splits(found, folds is not None), leave_out, self.path)
        self._task: Task | None = None

    def _colours(self, found: Layout, given: Any) -> tuple[ColourMap | None, tuple[str, ...]]:
        if given is None:
            return found.color_map, ()
        return make_color_map(given, found.path)

    def _make_reading(self, found: Layout) -> Reading:
        given = self.options
        density = self.task_name == "heatmap" and given["heatmap"] == "density"
        return Reading(
            kind="density" if density else KINDS[self.task_name],
            planes=self.task_name in WITH_PLANES,
            classes=tuple(self.classes) if self.classes else None,
            channels=len(self.classes) if self.classes else 1,
            ignore_index=self.ignore_index,
            label_map=given["label_map"] if given["label_map"] is not None else found.label_map,
            color_map=self.color_map,
            scale=self.scale,
            bands=tuple(given["bands"]) if given["bands"] is not None else None,
            image_range=given["image_range"],
            exif=given["exif"],
            resize_targets=given["resize_targets"],
            sigma=given["sigma"],
            heat_max=given["heat_max"],
        )

    def decide(self) -> dict[str, Any]:
        """Decides what has to be decided once from all maps.

        Returns:
            The keys of ``data`` in run.yaml that say so; empty where nothing had to be decided.
        """
        self._decide(self.layout)
        return {"heat_max": self.reading.heat_max} if self.reading.heat_max else {}

    def _decide(self, layout: Layout) -> None:
        self.reading = self.reading.decided(sample for samples in layout.splits.values() for sample in samples)
        self.options["heat_max"] = self.reading.heat_max or None

    def _with_splits(self, found: Layout, again: bool) -> Layout:
        """The layout with train and val, which are drawn where the folder has none or folds are wanted."""
        given = self.options
        keys = ("val_fraction", "test_fraction", "seed", "group_by", "stratify", "folds", "fold")
        options = SplitOptions(**{key: given[key] for key in keys})
        stratum = self._stratum if given["stratify"] else None
        if stratum is not None:
            self._decide(found)
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

    def _stratum(self, sample: Sample) -> str:
        """The rarest thing that can be told cheaply of a map: its smallest class, or the size of its mean."""
        try:
            target = self.reading.target(sample)
        except DataError:
            return "unreadable"  # whoever reads it for training says so; it may be left out before
        if self.reading.kind in ("labels", "masks"):
            labels = target if target.ndim == 2 else np.where(target == 1, np.arange(len(target))[:, None, None] + 1, 0)
            values, counts = np.unique(labels[labels != self.ignore_index], return_counts=True)
            return str(values[counts.argmin()]) if values.size else "none"
        mean = float(np.nanmean(target)) if np.isfinite(target).any() else 0.0
        return str(int(np.log2(mean))) if mean > 0 else "none"

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
            said["label_map"] = {str(old): new for old, new in said["label_map"].items()}
        return said

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
            self._decide(self.layout)
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
        self._decide(self.layout)
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

    def truths(
        self, split: str, pictures: Sequence[int] | None = None
    ) -> Iterator[tuple[Sample, Array, Array, Array | None]]:
        """Sample, picture in [0, 1], map and fixations of a split, or of some of its pictures, one by one."""
        samples = self.split(split)
        for sample in samples if pictures is None else [samples[number] for number in pictures]:
            image, target = self.read_pair(sample)
            yield sample, codec.as_unit(image, self.reading.image_range), target, self.read_points(sample)

    def check(self) -> dict[str, Any]:
        """Reads everything once and lists all problems; see :func:`densemble.data.check.check`."""
        from densemble.data.check import check  # only this needs it, and it knows every format

        report: dict[str, Any] = check(self)
        return report


def _short(file: Path, folder: Path) -> str:
    return str(file.relative_to(folder)) if file.is_relative_to(folder) else str(file)


def _without(found: Layout, leave_out: list[str] | str | None, folder: Path) -> Layout:
    """The layout without the pairs that are named.

    Raises:
        DataError: the file of names is not there, or a name matches nothing.
    """
    patterns = _patterns(leave_out, folder)
    if not patterns:
        return found
    named = [(f"{split}/{s.stem}", s.stem) for split, samples in found.splits.items() for s in samples]
    useless = [p for p in patterns if not any(fnmatch.fnmatchcase(name, p) for names in named for name in names)]
    if useless:
        raise DataError(
            f"data.leave_out: no pair of '{folder}' is named {some(useless)}; pairs are named by their stem, or as "
            "train/STEM where two splits have the same"
        )

    def unwanted(split: str, sample: Sample) -> bool:
        return any(fnmatch.fnmatchcase(n, p) for p in patterns for n in (sample.stem, f"{split}/{sample.stem}"))

    kept = {
        name: tuple(sample for sample in samples if not unwanted(name, sample))
        for name, samples in found.splits.items()
    }
    return replace(found, splits=kept)


def _patterns(leave_out: list[str] | str | None, folder: Path) -> list[str]:
    if leave_out is None or isinstance(leave_out, list):
        return [composed(name) for name in leave_out or []]
    for path in (Path(leave_out).expanduser(), folder / leave_out):
        if path.is_file():
            return [composed(line.strip()) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    raise DataError(
        f"data.leave_out: no file '{leave_out}' in the working folder nor in '{folder}'; write a list, or one name per "
        "line into a file"
    )
