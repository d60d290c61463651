"""Prediction of one image: its maps, and the files that ``densemble predict`` writes for them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from densemble_runtime import drawing
from densemble_runtime.drawing import Drawing, Meaning
from densemble_runtime.errors import UsageError
from densemble_runtime.files import write_npy, write_png, write_tiff
from densemble_runtime.images import Array

SAVE = ("map", "overlay", "uncertainty", "npy", "guarantee")


def require_kinds(what: Sequence[str]) -> None:
    """Check the kinds of files to save.

    Raises:
        UsageError: no kind, or an unknown one.
    """
    unknown = [kind for kind in what if kind not in SAVE]
    if unknown or not what:
        raise UsageError(f"cannot save '{''.join(unknown[:1])}'; available: {', '.join(SAVE)}")


@dataclass(frozen=True, repr=False)
class Prediction:
    """Maps of one image, at the size H x W of the image.

    Attributes:
        maps: ``mean`` ``(K, H, W)`` and the other maps of the model by name; those without channels are ``(H, W)``.
        description: description of the model.
        image: pixels ``(H, W, C)``.
        name: start of the names of its files.
        path: file of the image; ``None`` if it came as an array.
    """

    maps: dict[str, Array]
    description: Mapping[str, Any]
    image: Array
    name: str
    path: Path | None

    @property
    def mean(self) -> Array:
        """Combined map ``(K, H, W)``: probabilities, or values in the unit of the task."""
        return self.maps["mean"]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(self.description["classes"])

    @property
    def label(self) -> Array | None:
        """Most probable class ``(H, W)``, int64; ``None`` if the task has no classes that exclude each other."""
        if self.description["task"]["distribution"] != "categorical":
            return None
        return self.maps["label"] if "label" in self.maps else self.mean.argmax(0)

    @property
    def uncertainty(self) -> Array:
        """Entropy in nats for labels and masks, else the standard deviation over the members, float32 ``(H, W)``.

        Raises:
            UsageError: the model was exported without this map.
        """
        if self._measure == "entropy":
            return self._map("entropy")
        deviation: Array = np.sqrt(self._map("variance").mean(0))
        return deviation

    @property
    def _measure(self) -> str:
        """Map that the uncertainty is drawn from; files without this entry hold the entropy of all probabilities."""
        task = self.description["task"]
        measure: str = task.get("uncertainty", "variance" if task["distribution"] == "none" else "entropy")
        return measure

    def _map(self, name: str) -> Array:
        if name not in self.maps:
            raise UsageError(f"the model has no map '{name}'; it has: {', '.join(self.maps)}; export it with --maps")
        return self.maps[name]

    def map_image(self) -> Array:
        """The map as it is saved, ``(H, W)`` or ``(K, H, W)``.

        Labels are uint8 (uint16 above 256 classes); probabilities, heat and pixels 0..255 uint8; values in the unit of
        the training maps, uint16 if those were integers, else float32; densities float32.
        """
        task, label = self.description["task"], self.label
        if label is not None:
            return label.astype(np.uint8 if len(self.mean) <= 256 else np.uint16)
        saved = self.mean.astype(np.float32)
        if task["target_kind"] == "values":
            saved = (saved / task.get("file_scale", 1.0)).astype(np.float32)
            if task.get("whole", True):
                saved = saved.round().clip(0, 65535).astype(np.uint16)
        elif task["target_kind"] != "density":
            saved = (saved * 255).round().clip(0, 255).astype(np.uint8)
        return saved[0] if len(saved) == 1 else saved

    def overlay(self) -> Array:
        """The map drawn over the image, uint8 ``(H, W, 3)``; the class ``background`` shows the image."""
        return self.draw("overlay").pixels

    def uncertainty_image(self) -> Array:
        """The uncertainty in colours, dark = certain, uint8 ``(H, W, 3)``.

        Full scale is the largest possible entropy, or the 99th percentile of the standard deviation. A map that has one
        number everywhere is grey.
        """
        return self.draw("uncertainty").pixels

    def draw(self, kind: str) -> Drawing:
        """A drawing and its legend: ``overlay``, ``view`` (the map without the image) or ``uncertainty``.

        Raises:
            UsageError: an unknown kind, or a map that the model does not have.
        """
        task = self.description["task"]
        unit = task.get("unit", "")
        meaning = Meaning(
            task["target_kind"], task["distribution"], task["name"], self.classes, unit, self._measure
        )  # fmt: skip
        if kind == "uncertainty":
            return drawing.draw_uncertainty(self.uncertainty, meaning, len(self.description["members"]))
        if kind == "overlay":
            return drawing.draw_overlay(drawing.as_rgb(self.image), self.mean, meaning, self.label)
        if kind == "view":
            return drawing.draw_view(self.mean, meaning, self.label)
        raise UsageError(f"no drawing is named '{kind}'; available: overlay, view, uncertainty")

    def guarantee_image(self) -> Array:
        """Guaranteed sets as 0 or 255, uint8 ``(K, H, W)``; or ends of the interval, float32 ``(2K, H, W)``.

        Raises:
            UsageError: the model has no guarantee.
        """
        if "included" in self.maps:
            return self.maps["included"].astype(np.uint8) * 255
        return np.concatenate([self._map("lower"), self._map("upper")])

    def save(
        self, folder: str | Path, what: Sequence[str] = ("map", "overlay"), name: str | None = None
    ) -> list[Path]:  # fmt: skip
        """Write ``NAME_map.png``, ``NAME_overlay.png``, ``NAME_uncertainty.png``, ``NAME.npy`` and
        ``NAME_guarantee.tif``, as requested; existing files are replaced.

        The map is ``NAME_map.tif`` if no PNG can hold it (densities, values that are not integers, several channels). A
        label map is a palette PNG: its pixels are class numbers, and viewers show colours. Beside a map that is no
        8-bit PNG, ``NAME_map_view.png`` shows it in colours. Overlay, view and uncertainty have a legend below the
        image.

        Args:
            folder: created if it is missing.
            what: kinds of files, of ``SAVE``.
            name: default: the stem of the image's file.

        Returns:
            The files written. ``NAME.npy`` holds the mean map as float32 ``(K, H, W)``.

        Raises:
            UsageError: an unknown kind, or a map that the model does not have.
            ResourceError: the folder cannot be written.
        """
        require_kinds(what)
        stem = name or self.name
        return [path for kind in what for path in self._save_kind(kind, Path(folder), stem)]

    def _save_kind(self, kind: str, folder: Path, stem: str) -> list[Path]:
        if kind == "npy":
            return [write_npy(folder / f"{stem}.npy", self.mean.astype(np.float32))]
        if kind in ("overlay", "uncertainty"):
            return [write_png(folder / f"{stem}_{kind}.png", self.draw(kind).with_legend())]
        planes = self.map_image() if kind == "map" else self.guarantee_image()
        rgb = planes.ndim == 3 and len(planes) == 3 and planes.dtype == np.uint8
        if kind == "map" and planes.dtype.kind != "f" and (planes.ndim == 2 or rgb):
            labels = planes.dtype == np.uint8 and self.label is not None
            palette = drawing.class_colours(self.classes) if labels else None
            path = write_png(folder / f"{stem}_{kind}.png", np.moveaxis(planes, 0, -1) if rgb else planes, palette)
        else:
            path = write_tiff(folder / f"{stem}_{kind}.tif", planes)
        if kind != "map" or (path.suffix == ".png" and planes.dtype == np.uint8):
            return [path]
        return [path, write_png(folder / f"{stem}_{kind}_view.png", self.draw("view").with_legend())]

    def __repr__(self) -> str:
        shape = "x".join(str(length) for length in self.mean.shape)
        return f"<Prediction of '{self.name}': {self.description['task']['name']}, {shape}>"
