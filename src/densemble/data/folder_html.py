"""HTML of a data folder, for notebooks."""

from typing import Any

import numpy as np

from densemble.errors import DensembleError
from densemble.notebook import card, facts, grey, images
from densemble.shapes import Array
from densemble.storage.images import as_unit

_DRAWN = 3
_MOST_CLASSES = 20


def folder_html(data: Any) -> str:
    """Return path, layout, splits and classes of a :class:`FolderData`, and some training images with their targets."""
    splits = {name: samples for name, samples in data.layout.splits.items() if samples}
    classes = list(data.classes or ())
    more = f", ... ({len(classes)})" if len(classes) > _MOST_CLASSES else ""
    values = {
        "path": data.path,
        "layout": data.layout.name,
        "images": ", ".join(f"{len(samples)} {name}" for name, samples in splits.items()) or "none",
        "classes": ", ".join(map(str, classes[:_MOST_CLASSES])) + more if classes else None,
        "ignored label": data.ignore_index if data.kind == "labels" else None,
        "files without a partner": len(data.layout.unpaired) or None,
    }
    drawn: list[tuple[str, Array]] = []
    problems: dict[str, object] = {}
    name, samples = next(iter(splits.items()), ("", ()))
    for index in np.unique(np.linspace(0, len(samples) - 1, _DRAWN).round().astype(int)) if samples else ():
        sample = samples[index]
        try:
            image, target = data.read_pair(sample)
            drawn += [(f"{name}: {sample.stem}", _image(data, image)), ("target", _target(data, target))]
        except DensembleError as error:
            problems[f"cannot read {sample.stem}"] = error
    return card(f"FolderData: {data.task_name}", facts(values), images(drawn), facts(problems))


def _image(data: Any, image: Array) -> Array:
    """Return the first three channels, or the first one as grey, uint8."""
    pixels = as_unit(image, data.reading.options["image_range"])
    pixels = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., 0]
    shades: Array = (pixels * 255).round().clip(0, 255).astype(np.uint8)
    return shades


def _target(data: Any, target: Array) -> Array:
    """Return a target in shades of grey; for masks, the number of masks on each pixel."""
    if data.kind == "pixels":
        return _image(data, np.moveaxis(np.nan_to_num(target), 0, -1).astype(np.float32))
    if data.kind == "labels":
        classes = len(data.classes) if data.classes else int(target[target != data.ignore_index].max(initial=1)) + 1
        return grey(np.where(target == data.ignore_index, 0, target + 1), 0, classes)
    planes = target if target.ndim == 3 else target[None]
    if data.kind == "masks":
        return grey((planes == 1).sum(0), 0)
    return grey(planes.max(0) if len(planes) > 1 else planes[0])
