"""Samples of a data folder with their maps, as one PNG."""

from pathlib import Path

import numpy as np

from densemble.data.folder import FolderData
from densemble.inference import drawing
from densemble.storage.runs import require_writable

_COLUMNS = 4


def draw_preview(data: FolderData, count: int, path: Path) -> None:
    """Draws ``count`` training samples, evenly spread, each with its map over it.

    Raises:
        DataError: files that cannot be used.
        ResourceError: the folder of ``path`` cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    require_writable(path.parent)
    samples = [data.train[i] for i in np.unique(np.linspace(0, len(data.train) - 1, count).round().astype(int))]
    rows = -(-len(samples) // _COLUMNS)
    figure = Figure(figsize=(3.2 * _COLUMNS, 5 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2 * rows, _COLUMNS, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for number, sample in enumerate(samples):
        row, column = divmod(number, _COLUMNS)
        image, target = data.read_pair(sample)
        if data.task_name == "segmentation":
            known = np.where(target == data.ignore_index, 0, target)
            shown = drawing.colour_labels(known, data.task.out_channels)
            shown[target == data.ignore_index] = 0
            over = drawing.blend(image, shown, 0.6)
        elif data.task_name == "saliency":
            over = drawing.heat_overlay(image, target)
        else:
            over = drawing.colour_values(target, float(np.nanmin(target)), float(np.nanmax(target)))
        axes[2 * row, column].imshow(image)
        axes[2 * row, column].set_title(sample.stem, fontsize=9)
        axes[2 * row + 1, column].imshow(over)
    figure.savefig(path, dpi=90)
