"""Samples of a data folder with their maps, as one PNG."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from densemble.data.folder import FolderData
from densemble.errors import UsageError
from densemble.report.samples import DrawnSample, SamplePainter, augmented_samples, evenly, read_samples
from densemble.shapes import Size
from densemble.storage.runs import require_writable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = 4
_WIDTH = 3.2
_TITLE = 0.3
_MOST_NAMED = 40


def draw_preview(
    data: FolderData,
    count: int,
    path: Path,
    split: str = "train",
    augmented: str | None = None,
    input_size: Size = (240, 320),
) -> None:
    """Draws ``count`` samples of a split, evenly spread, each with its map below it.

    Args:
        data: the folder.
        count: number of samples.
        path: PNG to write.
        split: of the samples.
        augmented: row of ``AUGMENT``: beside each sample come three variants as training sees them.
        input_size: (H, W) of those.

    Raises:
        DataError: files that cannot be used.
        UsageError: no such augmentation, or a name that does not end with ``.png``.
        ResourceError: the folder of ``path`` cannot be written.
    """
    if path.suffix.lower() != ".png":
        raise UsageError(f"a preview is a PNG, not '{path.name}'; name it {path.stem}.png")
    require_writable(path.parent)
    chosen = evenly(data.split(split), count)
    raw = list(
        read_samples(data, chosen) if augmented is None else augmented_samples(data, chosen, augmented, input_size)
    )
    painter = SamplePainter(data, raw)
    figure = _draw([painter.draw(one) for one in raw])
    _explain(figure, painter, str(data.options["unit"]))
    figure.savefig(path, dpi=90)


def _draw(drawn: list[DrawnSample]) -> "Figure":
    """Four samples a row, each above its map."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(_COLUMNS, len(drawn))
    rows = -(-len(drawn) // columns)
    height = _WIDTH * float(np.median([one.image.shape[0] / one.image.shape[1] for one in drawn]))
    figure = Figure(figsize=(_WIDTH * columns, (2 * height + _TITLE) * rows + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2 * rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for number, one in enumerate(drawn):
        row, column = divmod(number, columns)
        axes[2 * row, column].imshow(one.image)
        axes[2 * row, column].set_title(_shortened(one.title), fontsize=9)
        axes[2 * row + 1, column].imshow(one.target)
    return figure


def _explain(figure: Any, painter: SamplePainter, unit: str) -> None:
    """What the colours mean: class names, or a bar of values."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.patches import Patch

    named = painter.legend()
    if named:
        patches = [Patch(color=[part / 255 for part in colour], label=_shortened(name)) for name, colour in named]
        across = max(1, int(figure.get_figwidth() / 1.6))
        figure.legend(
            handles=patches[:_MOST_NAMED], loc="outside lower center", ncols=across, fontsize=9, frameon=False
        )
    if painter.range is not None:
        scale = ScalarMappable(Normalize(*painter.range), "viridis")
        bar = figure.colorbar(scale, ax=figure.axes, location="bottom", shrink=0.5, aspect=40, pad=0.02)
        bar.set_label(f"{unit + ', ' if unit else ''}black: invalid")


def _shortened(name: str, length: int = 36) -> str:
    """A name that fits over its image; dollar signs would begin a formula."""
    short = name if len(name) <= length else f"{name[: length // 2 - 1]}…{name[-length // 2 :]}"
    return short.replace("$", r"\$")
