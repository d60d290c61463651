"""Draw samples of a data folder and their targets into one PNG file."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from densemble.data.folder import FolderData
from densemble.errors import UsageError
from densemble.report.samples import RawSample, SamplePainter, augmented_samples, evenly, read_samples
from densemble.shapes import Size
from densemble.storage.writing import atomic_binary, require_writable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = 4
_WIDTH = 3.2
_TITLE_HEIGHT = 0.3
_LEGEND_CLASSES = 40


def draw_preview(
    data: FolderData,
    count: int,
    path: Path,
    split: str = "train",
    augmented: str | None = None,
    input_size: Size = (240, 320),
) -> None:
    """Draw evenly spread samples of a split, each with its target below it.

    Args:
        data: the data folder.
        count: number of samples.
        path: PNG file to write.
        split: split of the samples.
        augmented: name in ``AUGMENT``; adds three augmented variants of each sample, as in training.
        input_size: (H, W) of the augmented variants.

    Raises:
        DataError: a file cannot be used.
        UsageError: the augmentation does not exist, or the name of the file does not end with ``.png``.
        ResourceError: the folder of ``path`` cannot be written.
    """
    if path.suffix.lower() != ".png":
        raise UsageError(f"the preview is written as PNG, not as '{path.name}'; name it {path.stem}.png")
    require_writable(path.parent)
    samples = evenly(data.split(split), count)
    raw = list(
        read_samples(data, samples) if augmented is None else augmented_samples(data, samples, augmented, input_size)
    )
    painter = SamplePainter(data, raw)
    figure = _draw(raw, painter)
    _add_legend(figure, painter, str(data.options["unit"]))
    with atomic_binary(path) as file:
        figure.savefig(file, format="png", dpi=90)


def _draw(samples: list[RawSample], painter: SamplePainter) -> "Figure":
    """Figure with four samples per row, each above its target."""
    from matplotlib.figure import Figure

    columns = min(_COLUMNS, len(samples))
    rows = -(-len(samples) // columns)
    height = _WIDTH * float(np.median([sample.image.shape[0] / sample.image.shape[1] for sample in samples]))
    figure = Figure(figsize=(_WIDTH * columns, (2 * height + _TITLE_HEIGHT) * rows + 0.6), layout="constrained")
    axes = figure.subplots(2 * rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for index, sample in enumerate(samples):
        row, column = divmod(index, columns)
        for axis, pixels in zip(axes[2 * row : 2 * row + 2, column], painter.draw(sample), strict=True):
            axis.imshow(pixels)
        axes[2 * row, column].set_title(_shortened(sample.title), fontsize=9)
    return figure


def _add_legend(figure: Any, painter: SamplePainter, unit: str) -> None:
    """Add the class names of the colours, or a colour bar of values."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.patches import Patch

    classes = painter.legend()
    if classes:
        patches = [Patch(color=[part / 255 for part in colour], label=_shortened(name)) for name, colour in classes]
        across = max(1, int(figure.get_figwidth() / 1.6))
        figure.legend(
            handles=patches[:_LEGEND_CLASSES], loc="outside lower center", ncols=across, fontsize=9, frameon=False
        )
    if painter.range is not None:
        scale = ScalarMappable(Normalize(*painter.range), "viridis")
        bar = figure.colorbar(scale, ax=figure.axes, location="bottom", shrink=0.5, aspect=40, pad=0.02)
        bar.set_label(f"{unit + ', ' if unit else ''}black: invalid")


def _shortened(name: str, length: int = 36) -> str:
    """Shorten a name to fit above its image, and escape dollar signs, which matplotlib reads as formulas."""
    short = name if len(name) <= length else f"{name[: length // 2 - 1]}…{name[-length // 2 :]}"
    return short.replace("$", r"\$")
