"""PicturePrediction: what an ensemble says about one picture, at the picture's own size; can be shown and saved."""

from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from densemble.ensemble.prediction import Prediction
from densemble.errors import UsageError
from densemble.inference import drawing
from densemble.shapes import Size
from densemble.storage.images import write_npy, write_png
from densemble.storage.runs import require_writable
from densemble.tasks import RegressionTask, SegmentationTask, Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = np.ndarray[Any, Any]
SAVE = ("map", "overlay", "uncertainty", "npy")


@dataclass(frozen=True, repr=False)
class PicturePrediction(Prediction):
    """A :class:`Prediction` of one picture: all maps have no batch axis and the picture's own H x W.

    Attributes:
        image: the picture, uint8 ``(H, W, 3)``.
        name: its stem, or a number for a picture that came as an array.
        path: its file, if it has one.
        task: what the map means.
    """

    image: Array
    name: str
    path: Path | None
    task: Task

    @cached_property
    def uncertainty(self) -> Array:
        """One map of how unsure the ensemble is ``(H, W)``: entropy in nats, or the standard deviation of values."""
        if self.entropy is not None:
            return self.entropy.cpu().numpy()
        return self.variance[0].sqrt().cpu().numpy()

    def map_picture(self) -> Array:
        """The map as it is saved: labels uint8, saliency 0..255 uint8, values uint16 in the training maps' own unit."""
        if self.label is not None:
            return self.label.cpu().numpy().astype(np.uint8)
        values = self.mean[0].cpu().numpy()
        if isinstance(self.task, RegressionTask):
            return (values / self.task.file_scale).round().clip(0, 65535).astype(np.uint16)
        return (values * 255).round().clip(0, 255).astype(np.uint8)

    def overlay(self) -> Array:
        """The map drawn over the picture, uint8 ``(H, W, 3)``."""
        if isinstance(self.task, SegmentationTask) and self.label is not None:
            colours = drawing.colour_labels(self.label.cpu().numpy(), len(self.task.classes))
            return drawing.blend(self.image, colours, 0.55)
        values = self.mean[0].cpu().numpy()
        if isinstance(self.task, RegressionTask):
            low, high = np.percentile(values, [1, 99])
            return drawing.blend(self.image, drawing.colour_values(values, float(low), float(high)), 0.7)
        return drawing.heat_overlay(self.image, values)

    def uncertainty_picture(self) -> Array:
        """The uncertainty in colours, dark = sure, uint8 ``(H, W, 3)``; full scale is the largest possible entropy."""
        highest = float(self.uncertainty.max())
        if self.entropy is not None:
            highest = float(np.log(max(self.task.out_channels, 2)))
        return drawing.colour_values(self.uncertainty, 0, highest, "magma")

    def figure(self) -> "Figure":
        """Picture, overlay and uncertainty side by side."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=self._figure_size(), layout="constrained")
        self._draw(figure)
        return figure

    def show(self) -> None:
        """Shows :meth:`figure`: below the cell in a notebook, elsewhere in a window of matplotlib."""
        if _in_notebook():
            from IPython.display import display

            display(self)  # type: ignore[no-untyped-call]
            return
        from matplotlib import pyplot

        self._draw(pyplot.figure(figsize=self._figure_size(), layout="constrained"))
        pyplot.show()

    def __repr__(self) -> str:
        shape = "x".join(str(length) for length in self.mean.shape)
        return f"<{type(self).__name__} of '{self.name}': {self.task.name}, {shape}>"

    def _repr_jpeg_(self) -> bytes:
        file = BytesIO()
        self.figure().savefig(file, format="jpeg", dpi=80)
        return file.getvalue()

    def _figure_size(self) -> tuple[float, float]:
        height, width = self.image.shape[:2]
        return 12, 12 / 3 * height / width + 0.4

    def _draw(self, figure: "Figure") -> None:
        axes = figure.subplots(1, 3)
        shown = ((self.image, self.name), (self.overlay(), self.task.name), (self.uncertainty_picture(), "uncertainty"))
        for axis, (pixels, title) in zip(axes, shown, strict=True):
            axis.imshow(pixels)
            axis.set_title(title)
            axis.set_axis_off()

    def save(
        self, folder: str | Path, what: tuple[str, ...] = ("map", "overlay"), name: str | None = None
    ) -> list[Path]:
        """Writes ``NAME_map.png``, ``NAME_overlay.png``, ``NAME_uncertainty.png`` and ``NAME.npy`` as asked for.

        Args:
            folder: made if it is missing.
            what: of ``SAVE``.
            name: default the picture's stem.

        Returns:
            The files written. ``NAME.npy`` holds the mean map as float32 ``(K, H, W)``.

        Raises:
            UsageError: an unknown kind.
            ResourceError: the folder cannot be written.
        """
        unknown = [kind for kind in what if kind not in SAVE]
        if unknown:
            raise UsageError(f"cannot save '{unknown[0]}'; there are: {', '.join(SAVE)}")
        place = require_writable(Path(folder))
        stem = name or self.name
        draw = {"map": self.map_picture, "overlay": self.overlay, "uncertainty": self.uncertainty_picture}
        written = []
        for kind in what:
            path = place / (f"{stem}.npy" if kind == "npy" else f"{stem}_{kind}.png")
            if kind == "npy":
                write_npy(path, self.mean.cpu().numpy().astype(np.float32))
            else:
                write_png(path, draw[kind]())
            written.append(path)
        return written


def _in_notebook() -> bool:
    try:
        from IPython.core.getipython import get_ipython
    except ImportError:
        return False
    shell = get_ipython()
    return shell is not None and hasattr(shell, "kernel")


def at_picture_size(
    prediction: Prediction, image: Array, name: str, path: Path | None, task: Task
) -> PicturePrediction:
    """A prediction for a batch of one, its maps resized (bilinear) to the picture's own size."""
    size: Size = (int(image.shape[0]), int(image.shape[1]))

    def grow(maps: Tensor) -> Tensor:
        if maps.shape[-2:] == size:
            return maps
        return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)

    def grow_plane(plane: Tensor | None) -> Tensor | None:
        return None if plane is None else grow(plane[:, None])[0, 0]

    mean = grow(prediction.mean)[0]
    return PicturePrediction(
        mean=mean,
        variance=grow(prediction.variance)[0],
        entropy=grow_plane(prediction.entropy),
        expected_entropy=grow_plane(prediction.expected_entropy),
        mutual_information=grow_plane(prediction.mutual_information),
        label=mean.argmax(0) if prediction.label is not None else None,
        image=image,
        name=name,
        path=path,
        task=task,
    )
