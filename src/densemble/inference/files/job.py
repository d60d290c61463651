"""Output folder of predictions, and limits on the number of images in progress."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch

from densemble.ensemble.ensemble import Ensemble
from densemble.errors import UsageError
from densemble.inference.file_kinds import SAVE, formats_of
from densemble.inference.files.records import Records
from densemble.inference.formats import Format, FormatOptions
from densemble.inference.formats.format import Record

GPU_BATCH, MOST_THREADS = 32, 8
"""Batch size on a GPU, and most threads that read, and that write."""


@dataclass(frozen=True)
class Output:
    """A folder of predictions.

    Attributes:
        folder: folder to write into; must exist.
        what: kinds of files, of ``SAVE``.
        rank_by: uncertainty to rank images by, of ``RANKINGS``.
        settings: JSON values of everything else that predictions depend on (artifact, backend, precision, ...).
            Results of an earlier run count only if its settings were equal.
        formats: options of the formats of other programs.
        records: what the files of the folder say about each image; needed if :attr:`folder_formats` has rows.
    """

    folder: Path
    what: tuple[str, ...]
    rank_by: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    formats: FormatOptions = field(default_factory=FormatOptions)
    records: Records | None = None

    @property
    def all_settings(self) -> dict[str, Any]:
        """The settings, with the options of this folder."""
        options = {"formats": changed} if (changed := self.formats.in_records()) else {}
        return {**self.settings, "save": sorted(self.what), "rank_by": self.rank_by, **options}

    @property
    def folder_formats(self) -> dict[str, Format]:
        """The formats with one file for all images of the folder, by name."""
        return formats_of(self.what, per_image=False)

    @property
    def per_image(self) -> tuple[str, ...]:
        """The kinds of files of which every image has one."""
        return tuple(kind for kind in self.what if kind not in self.folder_formats)

    def add_records(self, name: str, records: Mapping[str, Record]) -> None:
        """Store what the files of the folder say about an image.

        Raises:
            ResourceError: the records cannot be written.
        """
        if records:
            assert self.records is not None
            self.records.add(name, records)

    def maps(self, ensemble: Ensemble) -> frozenset[str]:
        """Names of the prediction maps that the files and the ranking need."""
        in_files = {name for kind in self.what for name in SAVE[kind].maps(ensemble)}
        return frozenset(in_files | ({self.rank_by} if self.rank_by is not None else set()))


@dataclass(frozen=True)
class Pace:
    """Batch size and number of threads.

    Attributes:
        batch: number of images that are computed together.
        pad: incomplete batches are padded by repeating their images, for networks compiled for one batch size.
        readers: number of threads that decode; 0: the calling thread decodes.
        writers: number of threads that resize, draw and write; 0: the calling thread does.

    Raises:
        UsageError: a batch below 1, or a negative number of threads.
    """

    batch: int = 8
    pad: bool = False
    readers: int = 1
    writers: int = 2

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise UsageError(f"batch = {self.batch} must be at least 1 image")
        if min(self.readers, self.writers) < 0:
            raise UsageError(f"readers = {self.readers}, writers = {self.writers}; neither may be negative")

    @classmethod
    def for_device(cls, device: torch.device, batch: int | None = None) -> Self:
        """Return the pace for a device.

        On a CPU, networks use the cores, and one thread decodes. A GPU computes faster than one thread decodes.

        Args:
            device: device of the ensemble.
            batch: batch size; ``None``: 8 on a CPU, 32 on a GPU.
        """
        if device.type != "cuda":
            return cls() if batch is None else cls(batch)
        threads = max(min((os.cpu_count() or 2) // 2, MOST_THREADS), 1)
        return cls(batch or GPU_BATCH, readers=threads, writers=threads)

    @property
    def most_reading(self) -> int:
        """Most images that are being decoded or wait to be grouped."""
        return self.readers + self.batch

    @property
    def most_waiting(self) -> int:
        """Most images that wait for others of their size."""
        return 3 * self.batch

    @property
    def most_writing(self) -> int:
        """Most images that are computed and not yet written."""
        return self.writers + self.batch
