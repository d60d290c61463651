"""Format: a row of ``FORMATS``; how the map of an image becomes an entry of a file of another program."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from densemble.errors import UsageError
from densemble.inference.drawing import is_background
from densemble.shapes import Array, Size
from densemble.storage.geo import Georeference, read_georeference
from densemble.tasks import Task

Content = Literal["classes", "masks", "points", "values"]
"""What a map tells: one class per pixel, masks that may overlap, a point per channel, or numbers."""
Record = Mapping[str, Any]
"""What a format stores of one image: JSON values; a format with a file per image may store an iterator in it."""

CRS = ("keep", "wgs84")


@dataclass(frozen=True, kw_only=True)
class FormatOptions:
    """Options of the formats of other programs.

    Attributes:
        components: ``coco``, ``coco-polygons``, ``labelstudio`` and ``cvat`` get one region per connected component (of
            4 neighbours) instead of one per class.
        crs: coordinates in GeoJSON: ``keep``, those of the raster; ``wgs84``: longitude and latitude.
        from_name: name of the BrushLabels tag in the labelling interface of Label Studio.
        to_name: name of its Image tag.
        data_key: key of the image in a task of Label Studio: ``value="$image"`` of the Image tag.
        image_url: start of the addresses of the images in Label Studio; the path of the image follows.
        model_version: version that Label Studio shows; empty: ``densemble`` and the start of the fingerprint.

    Raises:
        UsageError: an unknown value of ``crs``.
    """

    components: bool = field(default=False, metadata={"in_records": True})
    crs: str = field(default="keep", metadata={"in_records": True})
    from_name: str = "tag"
    to_name: str = "image"
    data_key: str = "image"
    image_url: str = "/data/local-files/?d="
    model_version: str = ""

    def __post_init__(self) -> None:
        for option in fields(self):
            if not isinstance(value := getattr(self, option.name), type(option.default)):
                kind = "true or false" if isinstance(option.default, bool) else "a text"
                raise UsageError(f"the format option {option.name} = {value!r} must be {kind}")
        if self.crs not in CRS:
            raise UsageError(f"the format option crs = {self.crs!r} is unknown; available: {', '.join(CRS)}")

    def in_records(self) -> dict[str, Any]:
        """The options that records depend on, and not only the files made from them, if they are not the default."""
        values = {option.name: getattr(self, option.name) for option in fields(self) if option.metadata}
        return {name: value for name, value in values.items() if value != getattr(FormatOptions, name)}


def content_of(task: Task) -> Content:
    """What the maps of a task tell."""
    if task.target_kind == "labels":
        return "classes"
    if task.target_kind == "masks":
        return "masks"
    return "points" if task.target_kind == "heat" and task.classes else "values"


@dataclass(frozen=True)
class MapRows:
    """Maps of an image or of some of its rows, as arrays.

    Attributes:
        top: index of the first row.
        mean: combined map, float ``(K, n, W)``.
        label: most probable class ``(n, W)``; ``None`` if the task has no label map.
        valid: where there is data, bool ``(n, W)``; ``None``: everywhere.
    """

    top: int
    mean: Array
    label: Array | None = None
    valid: Array | None = None


@dataclass(frozen=True)
class OutputFacts:
    """What collectors know of an image before its maps come.

    Attributes:
        path: its file; ``None`` for an array.
        folder: folder for temporary files.
        size: (H, W).
        task: task of the maps.
        options: options of the formats.
    """

    path: Path | None
    folder: Path
    size: Size
    task: Task
    options: FormatOptions

    @cached_property
    def georeference(self) -> Georeference | None:
        """Position of the pixels on Earth, if the file gives it."""
        return None if self.path is None or self.path.is_dir() else read_georeference(self.path)


class Collector(Protocol):
    """Takes the maps of one image, whole or in rows from the top."""

    def add(self, rows: MapRows) -> None:
        """Take the next rows."""

    def record(self) -> Record:
        """What the format stores of the image."""


@dataclass(frozen=True)
class Entry:
    """One image in a file.

    Attributes:
        image: path of the image relative to the folder that holds all images of the file, with ``/``.
        record: see :meth:`Collector.record`.
    """

    image: str
    record: Record


@dataclass(frozen=True)
class Format:
    """A row of ``FORMATS``.

    Attributes:
        file: name of the file of a folder, or the ending of the file of an image.
        contents: contents of maps that the format can hold.
        collect: makes the collector of an image.
        write: writes entries, which it may iterate several times, into a file for a task with options. With a file per
            image there is one entry, whose iterators end after one pass.
        per_image: every image has a file; else a folder has one file for all images.
        whole_map: the collector holds the whole map in memory.
        require: checks that optional libraries are installed.
    """

    file: str
    contents: frozenset[Content]
    collect: Callable[[OutputFacts], Collector]
    write: Callable[[Path, Iterable[Entry], Task, FormatOptions], None]
    per_image: bool = False
    whole_map: bool = False
    require: Callable[[], object] = lambda: None

    def image_file(self, stem: str) -> str:
        """Name of the file of a single image."""
        return f"{stem}.{self.file.removeprefix('predictions.')}"


def foreground(task: Task) -> list[int]:
    """Numbers of the classes that are not named background."""
    return [number for number, name in enumerate(task.classes) if not is_background(name)]


def class_planes(rows: MapRows, task: Task) -> list[tuple[Array, Array]]:
    """Class numbers and their probabilities in the planes of a map: one plane for classes, K for masks.

    Returns:
        For each plane the class, int32 ``(n, W)``, -1 where there is none or no data, and its probability ``(n, W)``.
        A mask holds the pixels with a probability of at least 0.5, as in the metrics.
    """
    if rows.label is not None:
        label = rows.label.astype(np.int32)
        planes = [(label, np.take_along_axis(rows.mean, label[None].astype(np.intp), 0)[0])]
    else:
        planes = [
            (np.where(mean >= 0.5, np.int32(number), np.int32(-1)), mean) for number, mean in enumerate(rows.mean)
        ]
    if rows.valid is None:
        return planes
    return [(np.where(rows.valid, labels, np.int32(-1)), probability) for labels, probability in planes]
