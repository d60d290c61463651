"""Verify an export: compare its maps with those of the ensemble on real images of several sizes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from densemble.ensemble.ensemble import Ensemble
from densemble.errors import ExportError
from densemble.exporters.graph import EnsembleGraph
from densemble.exporters.runner import Maps, Run
from densemble.inference.image_prediction import at_image_size
from densemble.inference.sources import read_for_ensemble
from densemble.progress.phases import phase
from densemble.shapes import Array, Size, format_size

SIZES: tuple[Size, ...] = ((224, 224), (225, 301), (97, 131), (360, 480))
BATCHES = (1, 3)

LARGEST_DIFFERENCE = 1e-4
"""Largest difference of a map, relative to the largest absolute value of the map, or to 1 for uncertainty maps."""
LARGEST_DISAGREEMENT = 1e-5
"""Largest share of the pixels whose label, set or decisions differ."""

_DISCRETE = ("label", "included", "disagreement")
"""Maps that depend on the order of nearly equal numbers, and jump where the order changes."""
_LEAST_SCALE = {"mean": 0.0, "lower": 0.0, "upper": 0.0}
_LEAST_PROBABILITY = 1e-3
"""Log-odds are compared between this probability and its complement: near 1, float32 is too coarse."""


@dataclass
class Comparison:
    """Largest differences between an export and the ensemble.

    Attributes:
        images: number of compared images.
        differences: largest relative difference by name of the map; ``logits`` is that of the log-odds of the mean.
        disagreement: share of differing pixels by name of a discrete map.
    """

    images: int = 0
    differences: dict[str, float] = field(default_factory=dict)
    disagreement: dict[str, float] = field(default_factory=dict)
    _pixels: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add(self, maps: Maps, reference: Maps, probabilities: bool) -> None:
        """Add the maps of a batch; ``reference`` holds those of the ensemble."""
        self.images += len(reference["mean"])
        for name, expected in reference.items():
            actual = maps[name]
            if actual.shape != expected.shape:
                raise ExportError(f"map '{name}' has shape {actual.shape} instead of {expected.shape}")
            if name in _DISCRETE:
                differing, total = self._pixels.get(name, (0, 0))
                differing += int((np.abs(actual.astype(np.float64) - expected) > LARGEST_DIFFERENCE).sum())
                self._pixels[name] = differing, total + expected.size
                self.disagreement[name] = differing / (total + expected.size)
            else:
                self._add(name, actual, expected, _LEAST_SCALE.get(name, 1.0))
        if probabilities:
            self._add("logits", _log_odds(maps["mean"]), _log_odds(reference["mean"]), 0.0)

    def _add(self, name: str, actual: Array, expected: Array, least_scale: float) -> None:
        scale = max(float(np.abs(expected).max()), least_scale, 1e-12)
        difference = float(np.abs(actual.astype(np.float64) - expected).max()) / scale
        self.differences[name] = max(self.differences.get(name, 0.0), difference if np.isfinite(difference) else np.inf)

    def require_match(self) -> None:
        """Check the limits.

        Raises:
            ExportError: a map differs too much.
        """
        for name, difference in self.differences.items():
            if not difference <= LARGEST_DIFFERENCE:
                raise ExportError(
                    f"the exported {name} differs from the ensemble's by {difference:.2g} of its scale, at most "
                    f"{LARGEST_DIFFERENCE:g} is accepted"
                )
        for name, share in self.disagreement.items():
            if not share <= LARGEST_DISAGREEMENT:
                raise ExportError(
                    f"the exported {name} differs from the ensemble's at {share:.2g} of the pixels, at most "
                    f"{LARGEST_DISAGREEMENT:g} are accepted"
                )

    def describe(self) -> dict[str, Any]:
        """Return plain values."""
        return {"images": self.images, "differences": self.differences, "disagreement": self.disagreement}


def _log_odds(probabilities: Array) -> Array:
    clipped = probabilities.astype(np.float64).clip(_LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
    result: Array = np.log(clipped / (1 - clipped))
    return result


def reference_maps(graph: EnsembleGraph, images: Tensor) -> Maps:
    """Maps of ``de.predict`` for images ``(B, C, H, W)`` in [0, 1]."""
    ensemble = graph.ensemble
    predictions = []
    for image in images:
        pixels = image.permute(1, 2, 0).numpy()
        prediction = ensemble.predict_members(image[None])
        predictions.append(at_image_size(prediction, pixels, "image", None, ensemble).maps())
    return {name: torch.stack([maps[name] for maps in predictions]).numpy() for name in graph.names}


def as_input(graph: EnsembleGraph, images: Tensor) -> Array:
    """Convert images ``(B, C, H, W)`` in [0, 1] to the input type of the graph."""
    if graph.options.input_type == "uint8":
        return (images * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
    return images.numpy()


def compare(
    run: Run, graph: EnsembleGraph, images: Sequence[Path] = (), sizes: Sequence[Size] = SIZES,
    batches: Sequence[int] = BATCHES,
) -> Comparison:  # fmt: skip
    """Compare an opened export with the ensemble at several sizes and batch sizes.

    Args:
        run: the opened export.
        graph: the graph that was exported.
        images: image files; default: the two photographs of scikit-learn.
        sizes: (H, W) to which the images are resized; a graph of a fixed size is compared at this size only.
        batches: numbers of images that are computed together.

    Raises:
        ExportError: the export fails on an image, or returns maps of other shapes.
    """
    comparison = Comparison()
    probabilities = graph.ensemble.task.distribution != "none"
    sizes = [graph.options.size] if graph.options.size else sizes
    with phase("compared", len(sizes) * sum(batches), "images") as compared:
        for size in sizes:
            pixels = photographs(graph.ensemble, max(batches), size, images)
            reference = reference_maps(graph, pixels)
            for batch in batches:
                maps = _run_batch(run, as_input(graph, pixels[:batch]), size)
                comparison.add(maps, {name: expected[:batch] for name, expected in reference.items()}, probabilities)
                compared.advance(batch)
    return comparison


def _run_batch(run: Run, pixels: Array, size: Size) -> Maps:
    """Run an export on pixels of images of a size.

    Raises:
        ExportError: it fails.
    """
    try:
        return run(pixels)
    except Exception as error:  # runtimes raise errors of many types
        raise ExportError(
            f"the exported file fails on {len(pixels)} images of {format_size(size)}: {str(error)[:300]}"
        ) from error


def photographs(ensemble: Ensemble, count: int, size: Size, files: Sequence[Path] = ()) -> Tensor:
    """Return photographs ``(count, C, H, W)`` of a size: whole numbers of 0..255, divided by 255.

    Args:
        ensemble: the ensemble that the photographs are for.
        count: number of photographs.
        size: (H, W) to which they are resized.
        files: image files; default: the two photographs of scikit-learn. If there are too few, they are repeated
            mirrored.
    """
    channels = ensemble.in_channels
    sources = [read_for_ensemble(path, ensemble) for path in files] or list(_sample_images())
    repeats = -(-channels // 3)
    tensors = []
    for index in range(count):
        pixels = torch.from_numpy(np.ascontiguousarray(sources[index % len(sources)])).permute(2, 0, 1)[None]
        pixels = pixels.flip(-1) if index >= len(sources) else pixels
        pixels = pixels if files else pixels.repeat(1, repeats, 1, 1)[:, :channels]
        tensors.append(F.interpolate(pixels, size=size, mode="bilinear", antialias=True))
    return (torch.cat(tensors) * 255).round() / 255


def _sample_images() -> Iterator[Array]:
    """Two photographs, float32 ``(427, 640, 3)`` in [0, 1]."""
    from sklearn.datasets import load_sample_image

    for name in ("china.jpg", "flower.jpg"):
        yield load_sample_image(name).astype(np.float32) / 255
