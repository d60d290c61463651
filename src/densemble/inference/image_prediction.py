"""ImagePrediction: what an ensemble says about one image, at the image's own size; can be shown and saved."""

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
from densemble.inference.files.output_names import name_in
from densemble.inference.ranking import require_ranked
from densemble.inference.stored_maps import no_data, stored, with_no_data
from densemble.shapes import Array, Size, format_size, size_of
from densemble.storage.geo import Georeference, read_georeference
from densemble.storage.images import read_validity, write_npy, write_png, write_tiff
from densemble.storage.runs import require_writable
from densemble.tasks import Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAVE = ("map", "overlay", "uncertainty", "npy", "guarantee")

_GREY = np.uint8(128)  # no colour of the uncertainty
_NO_GUARANTEE = (
    "the ensemble guarantees nothing, or had to do without a member; make one with `densemble assemble RUN -o "
    "NAME.safetensors` and --guarantee set or risk for classes, interval for values"
)


def require_kinds(what: tuple[str, ...]) -> None:
    """Checks kinds of files.

    Raises:
        UsageError: unknown; those that exist are listed.
    """
    unknown = [kind for kind in what if kind not in SAVE]
    if unknown:
        raise UsageError(f"cannot save '{unknown[0]}'; there are: {', '.join(SAVE)}")


def require_saved(what: tuple[str, ...], ensemble: Ensemble) -> None:
    """Checks that an ensemble can give the files that are asked for.

    Raises:
        UsageError: none, an unknown kind, or a guarantee where there is none.
    """
    require_kinds(what)
    if not what:
        raise UsageError(f"no kind of file is given to save; there are: {', '.join(SAVE)}")
    if "guarantee" in what and (ensemble.guarantee is None or ensemble.left_out):
        raise UsageError(_NO_GUARANTEE)


@dataclass(frozen=True, repr=False, kw_only=True)
class ImagePrediction(Prediction):
    """A :class:`Prediction` of one image: all maps have no batch axis and the image's own H x W.

    Attributes:
        image: the image, uint8 ``(H, W, 3)``.
        name: its stem, or a number for an image that came as an array.
        path: its file, if it has one.
        task: what the map means.
        valid: bool ``(H, W)``, where the file says that it holds data; ``None``: everywhere. The maps hold numbers
            elsewhere too; what is drawn, saved and averaged leaves them out.
        number: that no other prediction has.
    """

    image: Array
    name: str
    path: Path | None
    task: Task
    valid: Array | None = None
    number: int = field(default_factory=itertools.count().__next__, compare=False)

    @property
    def failed(self) -> str | None:
        """``None``: it was predicted; see :class:`densemble.inference.failed_image.FailedImage`."""
        return None

    @property
    def without(self) -> Mapping[str, str]:
        """Members that gave no usable map of the image, which was predicted without them, and why."""
        return self.left_out[0] if self.left_out else {}

    @cached_property
    def uncertainty(self) -> Array:
        """One map of how unsure the ensemble is ``(H, W)``: entropy in nats, or the standard deviation of values; NaN
        where there is no data."""
        if self.entropy is None:
            self.spread()  # raises an error where there is none
        return self._known(stored("uncertainty", self.maps(), self.task))

    def _known(self, maps: Array) -> Array:
        """Maps of floats ``(..., H, W)``, NaN where there is no data."""
        return maps if self.valid is None else with_no_data(maps, self.valid, float("nan"))

    def map_image(self) -> Array:
        """The map as it is saved.

        Returns:
            ``(H, W)`` or ``(K, H, W)``: labels uint8 (uint16 above 255), probabilities, heat and pixels 0..255 uint8,
            values in the training maps' own unit, uint16 where those were whole numbers, else float32, densities
            float32. Where there is no data it holds :func:`densemble.inference.stored_maps.no_data`.
        """
        return self._stored(stored("map", self.maps(), self.task, self.valid is not None))

    def _stored(self, maps: Array, guarantee: bool = False) -> Array:
        if self.valid is None:
            return maps
        return with_no_data(maps, self.valid, no_data(maps.dtype, self.task, guarantee))

    def overlay(self) -> Array:
        """The map drawn over the image, uint8 ``(H, W, 3)``."""
        label = None if self.label is None else self.label.cpu().numpy()
        maps = self.mean.cpu().numpy()
        if self.valid is None:
            return drawing.draw_map(self.image, maps, self.task.target_kind, label)
        known = np.where(self.valid, maps, np.float32(np.nan if self.task.target_kind == "values" else 0))
        drawn = drawing.draw_map(self.image, known, self.task.target_kind, label)
        return np.where(self.valid[..., None], drawn, self.image)

    def uncertainty_image(self) -> Array:
        """The uncertainty in colours, dark = sure, uint8 ``(H, W, 3)``; full scale is the largest possible entropy.

        Grey where there is no data.
        """
        unsure = np.nan_to_num(self.uncertainty)
        highest = float(unsure.max())
        if self.entropy is not None:
            classes = self.task.out_channels if self.task.distribution == "categorical" else 2
            highest = float(np.log(max(classes, 2)))
        drawn = drawing.colour_values(unsure, 0, highest, "magma")
        return drawn if self.valid is None else np.where(self.valid[..., None], drawn, _GREY)

    def guarantee_image(self) -> Array:
        """What is guaranteed: which classes are in each pixel's set, 0 or 255 uint8 ``(K, H, W)``; or lower and upper
        end of the interval, float32 ``(2K, H, W)`` in the value's unit.

        Raises:
            UsageError: the ensemble guarantees nothing.
        """
        if self.included is None and self.lower is None:
            raise UsageError(self._no_guarantee())
        return self._stored(stored("guarantee", self.maps(), self.task), guarantee=True)

    def _no_guarantee(self) -> str:
        if not self.without:
            return _NO_GUARANTEE
        members = ", ".join(f"'{name}', which {reason}" for name, reason in self.without.items())
        return f"nothing is guaranteed of '{self.path or self.name}': predicted without member {members}"

    def unsureness(self, by: str) -> float:
        """Mean over the pixels with data of ``entropy``, ``mutual_information``, ``disagreement`` or ``variance``.

        Raises:
            UsageError: there is no such map.
        """
        require_ranked(by, self.task)
        values: Tensor = getattr(self, by)
        if self.valid is not None:
            values = values[..., torch.from_numpy(self.valid).to(values.device)]
        return float(values.float().mean()) if values.numel() else 0.0

    def figure(self) -> "Figure":
        """Image, overlay and uncertainty side by side."""
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
        shown = ((self.image, self.name), (self.overlay(), self.task.name), (self.uncertainty_image(), "uncertainty"))
        for axis, (pixels, title) in zip(axes, shown, strict=True):
            axis.imshow(pixels)
            axis.set_title(title)
            axis.set_axis_off()

    def save(
        self, folder: str | Path, what: tuple[str, ...] = ("map", "overlay"), name: str | None = None
    ) -> list[Path]:
        """Writes ``NAME_map.png``, ``NAME_overlay.png``, ``NAME_uncertainty.png``, ``NAME.npy`` and
        ``NAME_guarantee.tif`` as asked for.

        The map is ``NAME_map.tif`` where no PNG can hold it (densities, several channels, pixels without data), and
        where the image is a GeoTIFF: the map then lies at the same place. Where the image holds no data, neither
        does the map: its file names the number that stands for it.

        Args:
            folder: made if it is missing.
            what: of ``SAVE``.
            name: default :attr:`name`; where this process has written another image of that name into the folder,
                with the image's folder or a number.

        Returns:
            The files written. ``NAME.npy`` holds the mean map as float32 ``(K, H, W)``.

        Raises:
            UsageError: an unknown kind, or a guarantee where there is none.
            ResourceError: the folder cannot be written.
        """
        require_kinds(what)
        if "guarantee" in what and self.included is None and self.lower is None:
            raise UsageError(self._no_guarantee())
        place = require_writable(Path(folder))
        wanted = name_in(place, self.name, self.number if self.path is None else self.path)
        with nullcontext(name) if name else wanted as stem:
            return [self._save_one(kind, place, stem) for kind in what]

    def _save_one(self, kind: str, place: Path, stem: str) -> Path:
        if kind == "npy":
            write_npy(path := place / f"{stem}.npy", self._known(stored("npy", self.maps(), self.task)))
            return path
        if kind in ("overlay", "uncertainty"):
            drawn = self.overlay() if kind == "overlay" else self.uncertainty_image()
            write_png(path := place / f"{stem}_{kind}.png", drawn)
            return path
        planes = self.map_image() if kind == "map" else self.guarantee_image()
        nodata = None if self.valid is None else no_data(planes.dtype, self.task, kind == "guarantee")
        as_png = kind == "map" and nodata is None and _is_image(planes)
        return _write(place / f"{stem}_{kind}", planes, self._georeference(), as_png, nodata)

    def _georeference(self) -> Georeference | None:
        return None if self.path is None else read_georeference(self.path)


def _is_image(planes: Array) -> bool:
    """Whether a PNG can hold ``(H, W)`` or ``(K, H, W)``: grey or three colours, of whole numbers."""
    return planes.dtype.kind != "f" and (planes.ndim == 2 or (len(planes) == 3 and planes.dtype == np.uint8))


def _write(place: Path, planes: Array, georeference: Georeference | None, as_png: bool, nodata: float | None) -> Path:
    """``(H, W)`` or ``(K, H, W)`` as a PNG or TIFF; with a georeference always as a GeoTIFF."""
    path = place.with_name(f"{place.name}.{'png' if as_png and georeference is None else 'tif'}")
    if path.suffix == ".png":
        write_png(path, np.moveaxis(planes, 0, -1) if planes.ndim == 3 else planes)
    else:
        write_tiff(path, planes, georeference, nodata)
    return path


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
    """An ensemble's prediction of a batch of one at the image's own size, see :class:`MapTraits`.

    Where the file at ``path`` says that it holds no data, the prediction holds none.

    Args:
        prediction: of one image, see :meth:`Ensemble.predict_members`.
        image: uint8 ``(H, W, 3)``.
        name: of the image.
        path: its file.
        ensemble: that predicted it.

    Raises:
        ValueError: a map over the members has another size: it cannot be resized.
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
    whole: dict[str, Any] = dict.fromkeys(MAPS)
    for name_of, maps in given.items():
        resizing = MAPS[name_of].resizing
        if resizing == "fixed" and maps.shape[-2:] != size:
            raise ValueError(
                f"a map of uncertainty of {format_size(size_of(maps))} for an image of "
                f"{format_size(size)}; predict with Ensemble.predict_members"
            )
        if resizing == "derived":
            maps = getattr(derived, name_of)
        whole[name_of] = (resize_maps(maps, size, density) if resizing == "resized" else maps)[0]
    return ImagePrediction(
        **whole,
        left_out=prediction.left_out,
        image=image,
        name=name,
        path=path,
        task=ensemble.task,
        valid=None if path is None or path.is_dir() else read_validity(path),
    )
