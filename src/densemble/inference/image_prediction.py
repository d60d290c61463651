"""ImagePrediction: the prediction of one image at the size of the image; can be shown and saved."""

import itertools
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.prediction import MAPS, Prediction
from densemble.ensemble.resize import resize_maps
from densemble.errors import UsageError
from densemble.inference import drawing
from densemble.inference.drawing import Drawing
from densemble.inference.file_kinds import NO_GUARANTEE, SAVE, VIEW, require_kinds
from densemble.inference.files.output_names import name_in
from densemble.inference.formats import Entry, Format, FormatOptions, MapRows, OutputFacts
from densemble.inference.formats.format import Record
from densemble.inference.meaning import meaning_of
from densemble.inference.ranking import require_ranked
from densemble.inference.stored_maps import no_data, stored
from densemble.notebook import card, facts, images
from densemble.shapes import Array, Size, format_size, size_of
from densemble.storage.geo import read_georeference
from densemble.storage.images import read_validity, write_npy, write_png, write_tiff
from densemble.storage.writing import require_writable
from densemble.tasks import Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False, kw_only=True)
class ImagePrediction(Prediction):
    """A :class:`Prediction` of one image: all maps have the size H x W of the image and no batch axis.

    Attributes:
        image: the image, uint8 ``(H, W, 3)``.
        name: stem of its file, or a number for an image that came as an array.
        path: file of the image; ``None`` if it came as an array.
        task: task of the map.
        valid: bool ``(H, W)``, where the file declares data; ``None``: everywhere. The maps hold numbers for the other
            pixels too; drawings, files and means leave them out.
        members: number of members of the ensemble that predicted the image; ``None``: unknown.
        number: unique number of the prediction in this process.
    """

    image: Array
    name: str
    path: Path | None
    task: Task
    valid: Array | None = None
    members: int | None = None
    number: int = field(default_factory=itertools.count().__next__, compare=False)

    @property
    def failed(self) -> str | None:
        """``None``: the image was predicted; see :class:`densemble.inference.failed_image.FailedImage`."""
        return None

    @property
    def without(self) -> Mapping[str, str]:
        """Members that gave no usable map of the image and were left out for it, with the reason."""
        return self.left_out[0] if self.left_out else {}

    @cached_property
    def uncertainty(self) -> Array:
        """Uncertainty map ``(H, W)``; NaN for missing data.

        Entropy in nats for labels and masks; for heat, densities, values and images the standard deviation over the
        members, the root of the mean variance of the channels. See :attr:`densemble.tasks.Task.uncertainty`.

        Raises:
            UsageError: the map was not computed.
        """
        if self._measure is None:
            raise UsageError(f"this prediction has no '{self.task.uncertainty}'; predict with uncertainty=True")
        return self._stored("uncertainty")

    @property
    def _measure(self) -> str | None:
        """Map that the uncertainty is drawn from; ``None`` if it was not computed."""
        return None if getattr(self, self.task.uncertainty) is None else self.task.uncertainty

    def _stored(self, kind: str) -> Array:
        return stored(kind, self.maps(), self.task, self.valid)

    def map_image(self) -> Array:
        """The map as it is saved.

        Returns:
            ``(H, W)`` or ``(K, H, W)``: labels uint8 (uint16 above 255); probabilities, heat and pixels 0..255 uint8;
            values in the unit of the training maps, uint16 if those were integers, else float32; densities float32.
            Missing data is marked by :func:`densemble.inference.stored_maps.no_data`.
        """
        return self._stored("map")

    def overlay(self) -> Array:
        """The map drawn over the image, uint8 ``(H, W, 3)``; the class ``background`` shows the image."""
        return self.draw("overlay").pixels

    def uncertainty_image(self) -> Array:
        """The uncertainty in colours, dark = certain, uint8 ``(H, W, 3)``.

        Full scale is the largest possible entropy, or the 99th percentile of the standard deviation. Missing data is
        grey, and so is a map that has one number everywhere.
        """
        return self.draw("uncertainty").pixels

    def draw(self, kind: str) -> Drawing:
        """A drawing and its legend: ``overlay``, ``view`` (the map without the image) or ``uncertainty``.

        Raises:
            UsageError: an unknown kind.
        """
        meaning = meaning_of(self.task)
        if kind == "uncertainty":
            return drawing.draw_uncertainty(self.uncertainty, meaning, self.members, self.valid)
        label = None if self.label is None else self.label.cpu().numpy()
        maps = self.mean.float().cpu().numpy()
        if kind == "overlay":
            return drawing.draw_overlay(self.image, maps, meaning, label, self.valid)
        if kind == "view":
            return drawing.draw_view(maps, meaning, label, self.valid)
        raise UsageError(f"no drawing is named '{kind}'; available: overlay, view, uncertainty")

    def guarantee_image(self) -> Array:
        """The guarantee as it is saved.

        Returns:
            For a set, 0 or 255 for each class, uint8 ``(K, H, W)``; for an interval, its lower and upper ends, float32
            ``(2K, H, W)`` in the unit of the values.

        Raises:
            UsageError: the ensemble has no guarantee.
        """
        self._require_guarantee()
        return self._stored("guarantee")

    def _require_guarantee(self) -> None:
        if self.included is not None or self.lower is not None:
            return
        if not self.without:
            raise UsageError(NO_GUARANTEE)
        members = ", ".join(f"'{name}', which {reason}" for name, reason in self.without.items())
        raise UsageError(f"'{self.path or self.name}' has no guarantee: predicted without member {members}")

    def unsureness(self, by: str) -> float:
        """Mean over the pixels with data of ``entropy``, ``mutual_information``, ``disagreement`` or ``variance``.

        Raises:
            UsageError: the prediction has no such map.
        """
        require_ranked(by, self.task)
        values: Tensor = getattr(self, by)
        if self.valid is not None:
            values = values[..., torch.from_numpy(self.valid).to(values.device)]
        return float(values.float().mean()) if values.numel() else 0.0

    def _repr_html_(self) -> str:
        """Return image, overlay and uncertainty with the facts of the prediction as HTML, for notebooks."""
        drawn = [("image", self.image), ("overlay", self.overlay())]
        measure = self._measure
        if measure is not None:
            drawn.append(("uncertainty", self.uncertainty_image()))
        values = {
            "file": self.path,
            "size": format_size((self.image.shape[0], self.image.shape[1])),
            f"mean {measure}": None if measure is None else f"{self.unsureness(measure):.4g}",
            "without members": ", ".join(f"{name} ({reason})" for name, reason in self.without.items()) or None,
        }
        return card(f"{self.name}: {self.task.name}", images(drawn, 220), facts(values))

    def figure(self) -> "Figure":
        """Image, overlay and uncertainty side by side, with their legends."""
        from matplotlib.figure import Figure

        figure = Figure(layout="constrained")
        self._draw(figure)
        return figure

    def show(self) -> None:
        """Show :meth:`figure`: below the cell in a notebook, else in a matplotlib window."""
        if _in_notebook():
            from IPython.display import display

            display(self)  # type: ignore[no-untyped-call]
            return
        from matplotlib import pyplot

        self._draw(pyplot.figure(layout="constrained"))
        pyplot.show()

    def __repr__(self) -> str:
        shape = "x".join(str(length) for length in self.mean.shape)
        return f"<{type(self).__name__} of '{self.name}': {self.task.name}, {shape}>"

    def _repr_jpeg_(self) -> bytes:
        file = BytesIO()
        self.figure().savefig(file, format="jpeg", dpi=80)
        return file.getvalue()

    def _draw(self, figure: "Figure") -> None:
        panels = [self.image, *(self.draw(kind).with_legend() for kind in ("overlay", "uncertainty"))]
        figure.set_size_inches(12, 12 / 3 * max(len(pixels) / pixels.shape[1] for pixels in panels) + 0.4)
        axes = figure.subplots(1, 3)
        shown = zip(panels, (self.name, self.task.name, "uncertainty"), strict=True)
        for axis, (pixels, title) in zip(axes, shown, strict=True):
            axis.imshow(pixels)
            axis.set_anchor("N")
            axis.set_title(title)
            axis.set_axis_off()

    def save(
        self,
        folder: str | Path,
        what: tuple[str, ...] = ("map", "overlay"),
        name: str | None = None,
        formats: FormatOptions | None = None,
    ) -> list[Path]:
        """Write ``NAME_map.png``, ``NAME_overlay.png``, ``NAME_uncertainty.png``, ``NAME.npy``, ``NAME_guarantee.tif``
        and files of other programs (``NAME.coco.json``, ``NAME.geojson``, ...), as requested.

        The map is ``NAME_map.tif`` if no PNG can hold it (densities, several channels, pixels without data), and if the
        image is a GeoTIFF: the map then has the same georeference. Where the image holds no data, the map holds none,
        and its file declares the number that marks it. A label map is a palette PNG: its pixels are class numbers, and
        viewers show colours. Beside a map that is no 8-bit PNG, ``NAME_map_view.png`` shows it in colours. Overlay,
        view and uncertainty have a legend below the image.

        Args:
            folder: created if it is missing.
            what: kinds of files, of ``SAVE``.
            name: default :attr:`name`; if this process has written another image of that name into the folder, with
                the image's folder or a number added.
            formats: options of the files of other programs. Such a file describes this image; ``predict`` with ``out``
                writes one for a folder.

        Returns:
            The files written. ``NAME.npy`` holds the mean map as float32 ``(K, H, W)``.

        Raises:
            UsageError: an unknown kind, one that the task does not have, or a guarantee that the prediction does not
                have.
            ResourceError: the folder cannot be written.
        """
        require_kinds(what, self.task)
        if "guarantee" in what:
            self._require_guarantee()
        folder = require_writable(Path(folder))
        unused_name = name_in(folder, self.name, self.number if self.path is None else self.path)
        with nullcontext(name) if name else unused_name as stem:
            options = formats or FormatOptions()
            return [path for kind in what for path in self._save_kind(kind, folder, stem, options)]

    def record(self, row: Format, folder: Path, options: FormatOptions) -> Record:
        """What a format of ``FORMATS`` stores of the image; ``folder`` is for temporary files."""
        height, width = self.image.shape[:2]
        collector = row.collect(OutputFacts(self.path, folder, (height, width), self.task, options))
        label = None if self.label is None else self.label.cpu().numpy()
        collector.add(MapRows(0, self.mean.float().cpu().numpy(), label, self.valid))
        return collector.record()

    def _save_kind(self, kind: str, folder: Path, stem: str, options: FormatOptions) -> list[Path]:
        row = SAVE[kind].format
        if row is not None:
            image = stem if self.path is None else self.path.name
            entry = Entry(image, self.record(row, folder, options))
            row.write(path := folder / row.image_file(stem), [entry], self.task, options)
            return [path]
        if kind == "npy":
            write_npy(path := folder / f"{stem}.npy", self._stored("npy"))
            return [path]
        if kind in ("overlay", "uncertainty"):
            write_png(path := folder / f"{stem}_{kind}.png", self.draw(kind).with_legend())
            return [path]
        planes = self.map_image() if kind == "map" else self.guarantee_image()
        nodata = None if self.valid is None else no_data(planes.dtype, self.task, kind)
        georeference = None if self.path is None else read_georeference(self.path)
        if kind == "map" and nodata is None and georeference is None and _fits_png(planes):
            labels = planes.dtype == np.uint8 and self.label is not None
            pixels = np.moveaxis(planes, 0, -1) if planes.ndim == 3 else planes
            palette = drawing.class_colours(self.task.classes) if labels else None
            write_png(path := folder / f"{stem}_{kind}.png", pixels, palette)
        else:
            write_tiff(path := folder / f"{stem}_{kind}.tif", planes, georeference, nodata)
        if kind != "map" or (path.suffix == ".png" and planes.dtype == np.uint8):
            return [path]
        write_png(view := folder / f"{stem}_{kind}{VIEW}", self.draw("view").with_legend())
        return [path, view]


def _fits_png(planes: Array) -> bool:
    """Whether a PNG can hold ``(H, W)`` or ``(K, H, W)``: integers with one channel, or uint8 with three."""
    return planes.dtype.kind != "f" and (planes.ndim == 2 or (len(planes) == 3 and planes.dtype == np.uint8))


def _in_notebook() -> bool:
    try:
        from IPython.core.getipython import get_ipython
    except ImportError:
        return False
    shell = get_ipython()
    return shell is not None and hasattr(shell, "kernel")


def at_image_size(
    prediction: Prediction, image: Array, name: str, path: Path | None, ensemble: Ensemble
) -> ImagePrediction:
    """Resize a prediction of a batch of one to the size of its image, see :class:`MapTraits`.

    Where the file at ``path`` declares missing data, the prediction holds none.

    Args:
        prediction: prediction of one image, see :meth:`Ensemble.predict_members`.
        image: uint8 ``(H, W, 3)``.
        name: name of the image.
        path: file of the image.
        ensemble: the ensemble that predicted it.

    Raises:
        ValueError: a map over the members has another size and cannot be resized.
    """
    size: Size = (int(image.shape[0]), int(image.shape[1]))
    density = ensemble.task.target_kind == "density"
    given, derived = prediction.maps(), prediction
    if prediction.mean.shape[-2:] != size:
        mean = resize_maps(prediction.mean, size, density)
        asked = frozenset({"entropy"}) & given.keys()
        combination = ensemble.combination
        if "included" not in given:
            combination = replace(combination, guarantee=None)
        derived = combination.conclude(mean, None, asked)
    resized: dict[str, Any] = dict.fromkeys(MAPS)
    for map_name, maps in given.items():
        resizing = MAPS[map_name].resizing
        if resizing == "fixed" and maps.shape[-2:] != size:
            raise ValueError(
                f"an uncertainty map of {format_size(size_of(maps))} for an image of {format_size(size)} cannot be "
                "resized; predict with Ensemble.predict_members"
            )
        if resizing == "derived":
            maps = getattr(derived, map_name)
        resized[map_name] = (resize_maps(maps, size, density) if resizing == "resized" else maps)[0]
    return ImagePrediction(
        **resized,
        left_out=prediction.left_out,
        image=image,
        name=name,
        path=path,
        task=ensemble.task,
        members=len(ensemble.members) - len(prediction.left_out[0] if prediction.left_out else ()),
        valid=None if path is None or path.is_dir() else read_validity(path),
    )
