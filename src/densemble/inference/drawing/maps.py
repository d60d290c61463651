"""Drawings of maps: over their image, alone, and of their uncertainty."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from densemble.inference.drawing.colours import (
    NO_DATA,
    as_rgb,
    class_colours,
    colour_values,
    is_background,
    value_range,
)
from densemble.inference.drawing.legend import Bar, Colour, Legend, add_legend, drawable_name
from densemble.shapes import Array

_LABEL_OPACITY, _VALUE_OPACITY, _MASK_OPACITY, _HEAT_OPACITY = 0.6, 0.7, 0.6, 0.75
_MOST_NAMES = 24
_PRESENT = 0.5  # probability from which a mask covers a pixel


@dataclass(frozen=True)
class Meaning:
    """What the numbers of a map mean.

    Attributes:
        kind: target kind of the task: labels, masks, heat, density, values or pixels.
        distribution: distribution of the task: categorical, bernoulli or none.
        name: name of the task, for the bar of values.
        classes: names of the channels; empty: one channel without a name.
        unit: unit of values.
        uncertainty: map that the uncertainty is drawn from: entropy or variance.
    """

    kind: str
    distribution: str
    name: str
    classes: tuple[str, ...] = ()
    unit: str = ""
    uncertainty: str = "variance"

    @property
    def value_unit(self) -> str:
        """Unit of the numbers of the map; empty if they have none."""
        return "objects per pixel" if self.kind == "density" else self.unit

    @property
    def spread(self) -> str:
        """Name of the root of the variance; of values, it may be calibrated to the size of their errors."""
        return "standard deviation" if self.kind == "values" else "standard deviation over the members"


@dataclass(frozen=True)
class Drawing:
    """A drawing and its legend.

    Attributes:
        pixels: uint8 ``(H, W, 3)``.
        legend: names or bar of its colours.
    """

    pixels: Array
    legend: Legend = field(default_factory=Legend)

    def with_legend(self) -> Array:
        """The drawing with the legend below it, see :func:`densemble.inference.drawing.legend.add_legend`."""
        return add_legend(self.pixels, self.legend)


@dataclass(frozen=True)
class _Coloured:
    """Colours uint8 ``(H, W, 3)``, with their opacity 0..1 over an image and over black, a number or ``(H, W)``."""

    colours: Array
    over_image: Array | float
    over_black: Array | float = 1.0
    legend: Legend = field(default_factory=Legend)


def draw_overlay(
    image: Array,
    maps: Array,
    meaning: Meaning,
    label: Array | None = None,
    valid: Array | None = None,
    limits: tuple[float, float] | None = None,
) -> Drawing:
    """Draw a map over its image. The class ``background`` shows the image.

    Args:
        image: uint8 ``(H, W, 3)``.
        maps: activated maps ``(K, H, W)``; for labels only K is used.
        meaning: meaning of the maps.
        label: classes ``(H, W)``, for labels.
        valid: bool ``(H, W)``, where the map holds data; elsewhere the image shows. ``None``: everywhere.
        limits: values of the first and the last colour; default: the 1st and the 99th percentile.
    """
    drawn = _coloured(maps, meaning, label, valid, limits)
    pixels = blend(image, drawn.colours, drawn.over_image)
    visible = tuple(entry for entry in drawn.legend.entries if not is_background(entry[0]))
    return Drawing(
        pixels if valid is None else np.where(valid[..., None], pixels, image), replace(drawn.legend, entries=visible)
    )


def draw_view(
    maps: Array,
    meaning: Meaning,
    label: Array | None = None,
    valid: Array | None = None,
    limits: tuple[float, float] | None = None,
) -> Drawing:
    """Draw a map without its image, on black; grey where it holds no data. See :func:`draw_overlay`."""
    drawn = _coloured(maps, meaning, label, valid, limits)
    opaque = isinstance(drawn.over_black, float) and drawn.over_black == 1
    pixels = drawn.colours if opaque else blend(np.zeros_like(drawn.colours), drawn.colours, drawn.over_black)
    return _without_data(Drawing(pixels, drawn.legend), valid)


def draw_uncertainty(
    values: Array, meaning: Meaning, members: int | None = None, valid: Array | None = None
) -> Drawing:
    """Draw an uncertainty map, dark = certain. A map with one number everywhere is grey, and its legend says why.

    Entropies are drawn up to the largest possible one, standard deviations up to their 99th percentile.

    Args:
        values: entropy in nats, or standard deviation over the members, ``(H, W)``; NaN where undefined.
        meaning: meaning of the map.
        members: number of members that predicted the image; ``None``: unknown.
        valid: bool ``(H, W)``, where there is data; other pixels are grey.
    """
    known = values[np.isfinite(values)] if valid is None else values[valid & np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    of_members = meaning.uncertainty == "variance"
    label = _with_unit(meaning.spread, meaning.value_unit) if of_members else "entropy (nats)"
    if high - low <= 1e-6 * abs(high):
        cause = "; one member has no spread between members" if members == 1 and of_members else ""
        cause += ", so the number is that of the calibration" if cause and high else ""
        legend = Legend(note=f"no map of uncertainty: the {label} is {high:.3g} at every pixel{cause}")
        return Drawing(np.full((*values.shape, 3), NO_DATA, np.uint8), legend)
    if of_members:
        top = float(np.percentile(known, 99)) or high
        label = f"{label}, up to the 99th percentile"
    else:
        top = math.log(max(len(meaning.classes), 2) if meaning.distribution == "categorical" else 2)
    pixels = colour_values(np.nan_to_num(values), 0, top, "magma")
    return _without_data(Drawing(pixels, Legend(bar=Bar(f"uncertainty: {label}", 0, top, "magma"))), valid)


def _with_unit(name: str, unit: str) -> str:
    return f"{name} ({unit})" if unit else name


def _without_data(drawing: Drawing, valid: Array | None) -> Drawing:
    if valid is None or valid.all():
        return drawing
    legend = replace(drawing.legend, entries=(*drawing.legend.entries, ("no data", NO_DATA)))
    return Drawing(np.where(valid[..., None], drawing.pixels, np.array(NO_DATA, np.uint8)), legend)


def blend(image: Array, colours: Array, opacity: Array | float) -> Array:
    """Draw colours over an image, both uint8 ``(H, W, 3)``; opacity 0..1, one number or ``(H, W)``."""
    share = np.asarray(opacity, dtype=np.float32)
    share = share[..., None] if share.ndim == 2 else share
    blended = image * (1 - share)
    blended += colours * share
    return blended.round(out=blended).astype(np.uint8)


def _coloured(
    maps: Array, meaning: Meaning, label: Array | None, valid: Array | None, limits: tuple[float, float] | None
) -> _Coloured:
    if meaning.kind == "labels" and label is not None:
        return _labels(label, _names(meaning, len(maps)), valid)
    if valid is not None:
        maps = np.where(valid, maps, np.float32(np.nan if meaning.kind == "values" else 0))
    match meaning.kind:
        case "pixels":
            return _Coloured(as_rgb(np.nan_to_num(np.moveaxis(maps, 0, -1))), 1.0)
        case "values":
            return _values(maps[0], meaning, limits)
        case "masks":
            return _masks(maps, _names(meaning, len(maps)))
    heat = maps.max(0)
    most = max(float(heat.max()), 1e-12)
    share = heat / most
    of = f"{meaning.name}, largest of {len(maps)} classes" if len(maps) > 1 else meaning.name
    bar = Bar(_with_unit(of, meaning.value_unit), 0, most, "inferno")
    opacity = np.clip(share * 1.2, 0, _HEAT_OPACITY)
    return _Coloured(colour_values(share, 0, 1, "inferno"), opacity, legend=Legend(bar=bar))


def _names(meaning: Meaning, channels: int) -> tuple[str, ...]:
    return meaning.classes or tuple(f"class {number}" for number in range(channels))


def _labels(label: Array, classes: Sequence[str], valid: Array | None) -> _Coloured:
    counts = np.bincount((label if valid is None else label[valid]).ravel(), minlength=len(classes))
    tinted = np.array([not is_background(name) for name in classes])
    opacity = _LABEL_OPACITY if tinted.all() else (tinted * np.float32(_LABEL_OPACITY)).take(label)
    colours = class_colours(classes).take(label, axis=0)
    return _Coloured(colours, opacity, legend=_class_legend(classes, counts))


def _values(values: Array, meaning: Meaning, limits: tuple[float, float] | None) -> _Coloured:
    low, high = limits or value_range(values[np.isfinite(values)])
    label = _with_unit(meaning.name, meaning.value_unit)
    label = label if limits else f"{label}, 1st to 99th percentile"
    colours = colour_values(np.nan_to_num(values), low, high, "viridis")
    return _Coloured(colours, _VALUE_OPACITY, legend=Legend(bar=Bar(label, low, high, "viridis")))


def _masks(masks: Array, classes: Sequence[str]) -> _Coloured:
    counts = np.count_nonzero(masks >= _PRESENT, axis=(1, 2)) * [not is_background(name) for name in classes]
    colours, opacity = colour_masks(masks, classes)
    return _Coloured(colours, opacity * _MASK_OPACITY, opacity, _class_legend(classes, counts))


def colour_masks(masks: Array, classes: Sequence[str]) -> tuple[Array, Array]:
    """Masks ``(K, H, W)`` in [0, 1] -> mixed colours of all classes except the background, and opacity ``(H, W)``."""
    tinted = np.array([not is_background(name) for name in classes], np.float32)
    masks = masks * tinted[:, None, None] if not tinted.all() else masks
    mixed = np.einsum("khw,kc->hwc", masks, class_colours(classes).astype(np.float32))
    mixed /= np.maximum(masks.sum(0), 1e-6)[..., None]
    return mixed.round().clip(0, 255).astype(np.uint8), np.clip(masks.max(0), 0, 1)


def _class_legend(classes: Sequence[str], counts: Array) -> Legend:
    """The classes that occur, in their order; of many, the most frequent 24."""
    present = [number for number in range(len(classes)) if counts[number]]
    shown = sorted(sorted(present, key=lambda number: -int(counts[number]))[:_MOST_NAMES])
    colours = class_colours(classes)
    entries: list[tuple[str, Colour]] = []
    for number in shown:
        red, green, blue = (int(part) for part in colours[number])
        entries.append((drawable_name(classes[number], number), (red, green, blue)))
    more = len(present) - len(shown)
    return Legend(tuple(entries), note=f"and {more} smaller classes" if more else "")
