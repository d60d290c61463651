"""What is kept of a pair after it was looked at: numbers and a thumbnail, never its pixels."""

from dataclasses import dataclass, field

from densemble.data.check.problems import Problem
from densemble.data.layouts import Sample
from densemble.shapes import Array, Size


@dataclass(frozen=True)
class SeenImage:
    """Of an image.

    Attributes:
        size: (H, W).
        channels: C.
        depth: name of its type.
        pixels: how many pixels the sums are over.
        sums, squares: per channel, of values in [0, 1].
        digest: hash of its pixels.
        thumbnail: grey uint8 ``(32, 32)``.
        constant: whether all its pixels are equal.
        highest: its largest number, as the file has it.
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
class SeenValues:
    """Of a map of values: lowest, highest, sum and number of the valid ones, and some of them.

    Attributes:
        some: float32, evenly taken from the valid ones.
        negative, zeros: how many numbers are so, valid or not.
    """

    low: float
    high: float
    total: float
    valid: int
    pixels: int
    some: Array
    negative: int = 0
    zeros: int = 0


@dataclass
class SeenMap:
    """Of a map.

    Attributes:
        digest: hash of its numbers.
        channels: K; 1 where it has no channel axis.
        constant: whether all its pixels are equal.
        labels: label -> pixels, of a label map.
        masks: (pixels that are 1, pixels that are known, all pixels) per channel, of masks.
        values: of everything else.
        points: number of points, or the sum of a density.
        palette: colours of a palette file.
        spoilt: whether its labels are none, for a reason that was said: they are not counted.
    """

    digest: bytes
    channels: int
    constant: bool
    labels: dict[int, int] | None = None
    masks: list[tuple[int, int, int]] | None = None
    values: SeenValues | None = None
    points: float | None = None
    palette: bytes | None = None
    spoilt: bool = False


@dataclass
class Seen:
    """A pair that was looked at; image and map are ``None`` where they could not be read.

    Its ``name`` is the stem, after ``SPLIT/`` where another split has the same stem.
    """

    split: str
    sample: Sample
    name: str
    image: SeenImage | None = None
    map: SeenMap | None = None
    with_points: bool = False
    problems: list[Problem] = field(default_factory=list)
