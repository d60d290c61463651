"""Facts that a check keeps of each pair: numbers and a thumbnail, never the pixels."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from densemble.data.check.problems import Problem, Severity
from densemble.data.check.subject import Checkable
from densemble.data.layouts import Sample
from densemble.shapes import Array, Size


@dataclass(frozen=True)
class ImageFacts:
    """Facts of an image.

    Attributes:
        size: (H, W).
        channels: C.
        depth: name of the data type.
        pixels: number of pixels in the sums.
        sums, squares: sums of values in [0, 1] and of their squares, per channel.
        digest: hash of the pixels.
        thumbnail: grey uint8 ``(32, 32)``.
        constant: whether all pixels are equal.
        highest: largest stored value.
        known: share of the pixels that hold data.
    """

    size: Size
    channels: int
    depth: str
    pixels: int
    sums: Array
    squares: Array
    digest: bytes
    thumbnail: Array
    constant: bool
    highest: float
    known: float


@dataclass(frozen=True)
class ValueFacts:
    """Facts of a target of values: minimum, maximum, sum and number of the valid values.

    Attributes:
        pixels: number of all values, valid or not.
        some: evenly spaced sample of the valid values, float32.
        negative, zeros: number of values below 0 and equal to 0, valid or not.
    """

    low: float
    high: float
    total: float
    valid: int
    pixels: int
    some: Array
    negative: int
    zeros: int


@dataclass
class TargetFacts:
    """Facts of a target.

    Attributes:
        digest: hash of the values.
        channels: K; 1 without a channel axis.
        constant: whether all values are equal.
        labels: number of pixels by label, for label maps.
        masks: (pixels that are 1, known pixels, all pixels) per channel, for masks.
        values: facts of the values, for all other kinds.
        points: number of points, or the sum of a density.
        palette: colours of a palette file.
        spoilt: whether a reported problem makes the labels useless; they are then not counted.
    """

    digest: bytes
    channels: int
    constant: bool
    labels: dict[int, int] | None = None
    masks: list[tuple[int, int, int]] | None = None
    values: ValueFacts | None = None
    points: float | None = None
    palette: bytes | None = None
    spoilt: bool = False


@dataclass
class CheckedPair:
    """A pair that was read; ``image`` and ``target`` are ``None`` if they are unreadable.

    ``name`` is the stem, with the prefix ``SPLIT/`` if another split has the same stem.
    """

    split: str
    sample: Sample
    name: str
    image: ImageFacts | None = None
    target: TargetFacts | None = None
    has_fixations: bool = False
    problems: list[Problem] = field(default_factory=list)

    def problem(
        self, kind: str, file: Path, message: str, remedy: str, severity: Severity = "error", partner: str | None = None
    ) -> Problem:
        """A problem of a file of this pair."""
        return Problem(kind, str(file), message, remedy, severity, self.split, self.name, partner)


@dataclass(frozen=True)
class CheckedData:
    """The checked pairs of a data folder, or of one of its splits."""

    data: Checkable
    pairs: Sequence[CheckedPair]

    def problem(
        self, kind: str, message: str, remedy: str, severity: Severity = "error", split: str | None = None
    ) -> Problem:
        """A problem of the whole folder."""
        return Problem(kind, str(self.data.path), message, remedy, severity, split)

    @cached_property
    def by_split(self) -> dict[str, "CheckedData"]:
        """The pairs of each split of the layout."""
        splits = self.data.layout.splits
        return {split: CheckedData(self.data, [pair for pair in self.pairs if pair.split == split]) for split in splits}

    @cached_property
    def images(self) -> list[tuple[CheckedPair, ImageFacts]]:
        """The pairs with a readable image."""
        return [(pair, pair.image) for pair in self.pairs if pair.image is not None]

    @cached_property
    def targets(self) -> list[tuple[CheckedPair, TargetFacts]]:
        """The pairs with a readable target."""
        return [(pair, pair.target) for pair in self.pairs if pair.target is not None]

    @cached_property
    def label_counts(self) -> list[tuple[CheckedPair, dict[int, int]]]:
        """The pairs with a usable label map, and the number of pixels of each label in it."""
        usable = ((pair, target) for pair, target in self.targets if not target.spoilt)
        return [(pair, target.labels) for pair, target in usable if target.labels is not None]

    @cached_property
    def labels(self) -> set[int]:
        """Labels that occur, without the ignored one."""
        return {label for _, counts in self.label_counts for label in counts} - {self.data.ignore_index}
