"""Broken data sets: the fault of each, the problem that the check must report, and the remedy."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from data.good_sets import SIZE, heat, image_of, labels, photo, save, target_of
from data.spoiling import (
    all_depths,
    all_maps,
    capital,
    copied,
    cut,
    depths,
    differing_palettes,
    doubled,
    fixations,
    float_images,
    halved,
    heat_file,
    in_colours,
    in_pages,
    masks,
    no_data_tag,
    not_in_val,
    only,
    only_in_val,
    point_file,
    rare,
    relabelled,
    resized,
    same,
    smoothed,
    spotted,
    stacked,
    turned,
    twelve_bits,
    undefined,
    with_classes,
    without_data,
)
from PIL import Image


@dataclass(frozen=True)
class Broken:
    """A broken data set and the expected problem.

    Attributes:
        kind: expected kind of the problem.
        remedy: text that the remedy must contain.
        spoil: breaks a valid data set.
        task: task of the data set.
        mends: whether the flags in the remedy fix the data set.
        severity: expected severity of the problem.
        options: options of ``FolderData``.
    """

    kind: str
    remedy: str
    spoil: Callable[[Path], object]
    task: str = "segmentation"
    mends: bool = False
    severity: str = "error"
    options: dict[str, Any] = field(default_factory=dict)


def nested(number: int) -> Any:
    """Labels without jumps: 2 is inside 1, which is inside 0."""
    return (heat(number) > 0.2).astype(np.uint8) + (heat(number) > 0.6)


def with_void(number: int) -> Any:
    """Labels with an unknown strip; every third map lacks the last label."""
    result = np.minimum(labels(number), 1) if number % 3 == 0 else labels(number)
    result[:5] = 255
    return result


def tables(points: dict[str, str]) -> Callable[[Path], object]:
    """Tables of points by stem; tables of all other stems are empty."""
    return lambda f: [target_of(f, stem).write_text("x,y\n" + points.get(stem, "")) for stem in "abcdef"]


BROKEN: dict[str, Broken] = {
    # files and names
    "map missing": Broken("unpaired", "data.skip_unpaired=true", lambda f: target_of(f, "b").unlink(), mends=True),
    "image missing": Broken("unpaired", "data.skip_unpaired=true", lambda f: image_of(f, "b").unlink(), mends=True),
    "two files of one stem": Broken("doubled name", "rename or remove", doubled),
    "maps in another format": Broken(
        "unused files",
        "save images and maps as PNG",
        lambda f: Image.fromarray(labels(9)).save(f / "train" / "targets" / "z.pgm"),
        severity="warning",
    ),
    "capital letters": Broken("names differ in case", "rename one", capital, severity="warning"),
    "text as image": Broken(
        "unreadable", "data.leave_out", lambda f: image_of(f, "b").write_text("no image"), mends=True
    ),
    "text as map": Broken("unreadable", "data.leave_out", lambda f: target_of(f, "b").write_text("no"), mends=True),
    "image without bytes": Broken(
        "empty file", "data.leave_out", lambda f: image_of(f, "b").write_bytes(b""), mends=True
    ),
    "map without bytes": Broken(
        "empty file", "copy it again", lambda f: target_of(f, "b").write_bytes(b""), mends=True
    ),
    "image cut short": Broken("damaged", "copy it again", lambda f: cut(image_of(f, "b"), 0.5), mends=True),
    "map cut short": Broken("damaged", "data.leave_out", lambda f: cut(target_of(f, "b"), 0.6), mends=True),
    "JPEG cut short": Broken(
        "damaged",
        "data.leave_out",
        lambda f: (
            save(image_of(f, "b").with_suffix(".jpg"), photo(1), quality=95),
            cut(image_of(f, "b"), 0.7),
        ),
        mends=True,
    ),
    "NPY cut short": Broken(
        "damaged",
        "data.leave_out",
        lambda f: (save(target_of(f, "b").with_suffix(".npy"), labels(1)), cut(target_of(f, "b"), 0.7)),
        mends=True,
    ),
    "TIFF cut short": Broken(
        "damaged",
        "data.leave_out",
        lambda f: (save(target_of(f, "b").with_suffix(".tif"), labels(1)), cut(target_of(f, "b"), 0.7)),
        mends=True,
    ),
    "no validation pairs": Broken("empty split", "add some", lambda f: only(f, "val", 0)),
    "one validation pair": Broken("tiny split", "add more", lambda f: only(f, "val", 1), severity="warning"),
    # sizes and orientation
    "map of half the size": Broken(
        "unequal sizes", "data.resize_targets=true", lambda f: save(target_of(f, "b"), labels(1, (24, 32))), mends=True
    ),
    "map of another shape": Broken(
        "unequal sizes", "data.leave_out", lambda f: save(target_of(f, "b"), labels(1, (48, 48)))
    ),
    "map on its side": Broken(
        "unequal sizes", "data.leave_out", lambda f: save(target_of(f, "b"), labels(1, (64, 48))), mends=True
    ),
    "EXIF turn of the image alone": Broken(
        "unequal sizes", "data.exif=auto", lambda f: turned(f, "b", 6), mends=True, options={"exif": "image"}
    ),
    "EXIF upside down": Broken(
        "ambiguous orientation", "data.exif=both", lambda f: turned(f, "b", 3), severity="warning"
    ),
    "EXIF mirrored": Broken(
        "ambiguous orientation", "data.exif=image", lambda f: turned(f, "b", 2), severity="warning"
    ),
    "EXIF turn of a square": Broken(
        "ambiguous orientation",
        "data show",
        lambda f: (turned(f, "b", 6, (48, 48)), save(target_of(f, "b"), labels(1, (48, 48)))),
        severity="warning",
    ),
    "image below 32 pixels": Broken(
        "small image", "data.leave_out", resized("b", (24, 32)), severity="warning", mends=True
    ),
    "panorama": Broken("oblong image", "cut it into pieces", resized("b", (32, 160)), severity="warning", mends=True),
    "sizes from 40 to 400": Broken(
        "sizes vary",
        "input_size",
        lambda f: (resized("a", (32, 40))(f), resized("b", (300, 400))(f)),
        severity="warning",
    ),
    # images
    "one colour": Broken(
        "constant image",
        "data.leave_out",
        lambda f: save(image_of(f, "b"), np.full((*SIZE, 3), 7, np.uint8)),
        mends=True,
    ),
    "four bands among three": Broken(
        "mixed channels",
        "data.bands=[0, 1, 2]",
        lambda f: save(image_of(f, "b").with_suffix(".npy"), np.concatenate([photo(1), photo(2)[..., :1]], -1)),
        mends=True,
    ),
    "16 bits among 8": Broken(
        "mixed depths",
        "data.image_range",
        lambda f: save(image_of(f, "b").with_suffix(".npy"), photo(1).astype(np.uint16) * 20),
        severity="warning",
    ),
    "floats above 1": Broken("image values", "data.image_range", float_images(lambda x: x * 300)),
    "undefined pixels": Broken("image values", "fill them", float_images(undefined)),
    "bands that are not there": Broken(
        "unusable image", "counted from 0", lambda f: None, options={"bands": [0, 1, 5]}
    ),
    # copies
    "image twice": Broken(
        "image twice",
        "data.leave_out",
        lambda f: (copied("a", "b", same, ".png")(f), save(target_of(f, "b"), labels(0))),
        severity="warning",
        mends=True,
    ),
    "image twice with two maps": Broken(
        "two maps for one image", "data.leave_out", copied("a", "b", same, ".png"), mends=True
    ),
    "image in train and val": Broken("leak", "--leave-out leaks.txt", copied("e", "b", same, ".png"), mends=True),
    "mirrored in val": Broken(
        "near-duplicate", "data.leave_out", copied("e", "b", lambda x: x[:, ::-1], ".png"), mends=True
    ),
    "upside down in val": Broken(
        "near-duplicate", "data.leave_out", copied("e", "b", lambda x: x[::-1, ::-1], ".png"), mends=True
    ),
    "brighter in val": Broken(
        "near-duplicate",
        "data.leave_out",
        copied("e", "b", lambda x: (x * 0.8 + 40).astype(np.uint8), ".png"),
        mends=True,
    ),
    "compressed in val": Broken(
        "near-duplicate", "data.leave_out", copied("e", "b", same, ".jpg", quality=60), mends=True
    ),
    "smaller in val": Broken("near-duplicate", "data.leave_out", copied("e", "b", halved, ".png"), mends=True),
    # labels
    "label outside": Broken(
        "labels outside classes",
        "data.label_map={7: 255}",
        with_classes(lambda f: save(target_of(f, "b"), np.where(labels(1) == 2, 7, labels(1)).astype(np.uint8))),
        mends=True,
    ),
    "labels from 1": Broken(
        "labels outside classes", "data.label_map={1: 0, 2: 1, 3: 2}", with_classes(relabelled(1, 2, 3)), mends=True
    ),
    "void under another number": Broken(
        "labels outside classes",
        "data.label_map={255: 9}",
        with_classes(lambda f: save(target_of(f, "b"), np.where(labels(1) == 2, 255, labels(1)).astype(np.uint8))),
        mends=True,
        options={"ignore_index": 9},
    ),
    "label -1": Broken("labels outside classes", "data.label_map={-1: 255}", relabelled(-1, 0, 1), mends=True),
    "black and white": Broken("0/255 mask", "data.label_map={255: 1}", relabelled(0, 255, 0), mends=True),
    "labels far apart": Broken("gaps in labels", "data.label_map={50: 1, 100: 2}", relabelled(0, 50, 100), mends=True),
    "palettes that differ": Broken("palettes differ", "data.color_map=FILE", differing_palettes),
    "colours": Broken("colour-coded labels", "data.color_map=FILE", in_colours(".png")),
    "colours as JPEG": Broken("lossy labels", "save them as PNG", in_colours(".jpg")),
    "colour that no map names": Broken(
        "unknown colours",
        "add them",
        in_colours(".png"),
        options={"color_map": {"x": "#0a141e", "y": "#c80000"}},
    ),
    "photographs as masks": Broken(
        "too many colours", "photograph", lambda f: all_maps(f, lambda path, n: save(path, photo(n + 80)))
    ),
    "labels as JPEG": Broken(
        "lossy labels",
        "save it as PNG",
        lambda f: all_maps(f, lambda path, n: save(path.with_suffix(".jpg"), labels(n) * 60, quality=75)),
    ),
    "antialiased": Broken("smoothed labels", "nearest pixel", smoothed),
    "heat as labels": Broken(
        "values as labels",
        "--task saliency",
        lambda f: all_maps(f, lambda path, n: save(path, (heat(n) * 255).astype(np.uint8))),
    ),
    "fractions as labels": Broken(
        "values as labels",
        "--task depth",
        lambda f: all_maps(f, lambda path, n: save(path.with_suffix(".npy"), heat(n))),
    ),
    "all void": Broken(
        "empty map", "data.leave_out", lambda f: save(target_of(f, "b"), np.full(SIZE, 255, np.uint8)), mends=True
    ),
    "class in val alone": Broken("class not in train", "move some images", only_in_val),
    "class not in val": Broken("class not in val", "move some", not_in_val, severity="warning"),
    "class nowhere": Broken(
        "absent class", "class names", with_classes(lambda f: None, "a\nb\nc\nd\n"), severity="warning"
    ),
    "class of a few pixels": Broken("rare class", "class_weights=balanced", rare, severity="warning"),
    "one class": Broken("one class", "add maps", relabelled(0, 0, 0)),
    # masks
    "mask of 2": Broken(
        "mask values", "data.label_map={2: 1}", masks(lambda masks: masks * 2), "multilabel", mends=True
    ),
    "grey in masks": Broken(
        "mask values",
        "without antialiasing",
        masks(lambda m: (heat(1) * 200).astype(np.uint8)[..., None] * m),
        "multilabel",
    ),
    "mask missing": Broken(
        "mixed maps", "make all maps with 3 channels", masks(lambda masks: masks[..., :2]), "multilabel"
    ),
    "unknown masks": Broken(
        "empty map", "data.leave_out", lambda f: None, "multilabel", options={"label_map": {0: 255, 1: 255}}
    ),
    # heat
    "labels as saliency": Broken(
        "labels as heat",
        "--task segmentation",
        lambda f: all_maps(f, lambda path, n: save(path, labels(n) * 5)),
        "saliency",
    ),
    "black map": Broken(
        "empty map",
        "data.leave_out",
        lambda f: save(target_of(f, "b"), np.zeros(SIZE, np.uint8)),
        "saliency",
        mends=True,
    ),
    "grey map": Broken(
        "constant map",
        "make the map again",
        lambda f: save(target_of(f, "b"), np.full(SIZE, 9, np.uint8)),
        "saliency",
        severity="warning",
    ),
    "undefined heat": Broken("not a number", "write 0", heat_file(np.full(SIZE, np.nan)), "saliency"),
    "negative heat": Broken("negative values", "must be 0", heat_file(heat(1) - 0.5), "saliency"),
    "heat above 1 in one file": Broken(
        "heat above 1", "float: 1.25", heat_file(heat(1) / heat(1).max() * 1.25), "saliency", severity="warning"
    ),
    "heat of 12 bits": Broken(
        "few of 16 bits",
        "data.heat_max=4095",
        lambda f: all_maps(f, lambda path, n: save(path, (heat(n) * 4000).astype(np.uint16))),
        "saliency",
        severity="warning",
        mends=True,
    ),
    "images of 12 bits": Broken(
        "few of 16 bits", "data.image_range=[0, 4095]", twelve_bits, severity="warning", mends=True
    ),
    "an image of several pages": Broken("several pages", "a separate file", stacked),
    "labels in pages": Broken("several pages", "--task multilabel", in_pages),
    "labels that hold no data": Broken(
        "no data among labels",
        "data.ignore_index=2",
        lambda f: all_maps(f, lambda path, n: save(path.with_suffix(".tif"), labels(n), extratags=[no_data_tag("2")])),
        severity="warning",
        mends=True,
    ),
    "an image without data": Broken("empty image", "data.leave_out", without_data, mends=True),
    "heat in colours": Broken("coloured map", "--task image", lambda f: save(target_of(f, "b"), photo(90)), "saliency"),
    "fixations of another size": Broken("fixations", "make it again", fixations(np.ones((9, 9), bool)), "saliency"),
    "no fixations": Broken("fixations", "without fixations", fixations(np.zeros(SIZE, bool)), "saliency"),
    # values
    "millimetres": Broken("unit", "data.scale=0.001", all_depths(10), "depth", severity="warning", mends=True),
    "no valid depth": Broken("empty map", "make the map again", depths(lambda x: x * 0), "depth"),
    "negative heights": Broken("empty map", "data.invalid_below=null", all_depths(-1), "depth", mends=True),
    "some negative depths": Broken(
        "negative values", "data.invalid_below=null", depths(spotted(-5)), "depth", mends=True, severity="warning"
    ),
    "zeros among values": Broken(
        "zeros",
        "data.invalid_below=0",
        depths(lambda x: np.where(x > 400, 0, x)),
        "regression",
        mends=True,
        severity="warning",
    ),
    "infinite depth": Broken("infinite values", "write NaN", depths(spotted(np.inf)), "depth", severity="warning"),
    "depth of 65535": Broken(
        "saturated values",
        "write 0 or NaN",
        depths(spotted(65535)),
        "depth",
        severity="warning",
        options={"unit": "mm"},
    ),
    "flat depth": Broken("constant map", "data.leave_out", depths(lambda x: x * 0 + 4), "depth", severity="warning"),
    "labels as depth": Broken(
        "labels as values",
        "--task segmentation",
        lambda f: all_maps(f, lambda path, n: save(path, labels(n) * 5 + 1)),
        "depth",
    ),
    **{
        f"labels 0, 1, 2{how} as {task}": Broken(
            f"labels as {'values' if task in ('depth', 'regression') else 'heat'}", "--task segmentation", spoil, task
        )
        for task in ("saliency", "depth", "regression", "heatmap")
        for how, spoil in {
            "": lambda f: all_maps(f, lambda path, n: save(path.with_suffix(".png"), labels(n))),
            " of discs in discs": lambda f: all_maps(f, lambda path, n: save(path.with_suffix(".png"), nested(n))),
            " and void": lambda f: all_maps(f, lambda path, n: save(path.with_suffix(".png"), with_void(n))),
            " in floats": lambda f: all_maps(
                f, lambda path, n: save(path.with_suffix(".tif"), labels(n).astype(np.float32))
            ),
        }.items()
    },
    "depth in colours": Broken("coloured map", "grey PNG", lambda f: save(target_of(f, "b"), photo(91)), "depth"),
    # splits without anything
    "no point in val": Broken("nothing to score", "into val", tables({"a": "5,5\n", "b": "9,7\n"}), "heatmap"),
    "no point in train": Broken("nothing to learn", "into train", tables({"e": "5,5\n"}), "heatmap"),
    "no object in train": Broken(
        "nothing to learn", "into train", tables({"e": "5,5\n"}), "heatmap", options={"heatmap": "density"}
    ),
    "no heat in val": Broken(
        "nothing to score",
        "into val",
        lambda f: all_maps(
            f, lambda path, n: save(path.with_suffix(".png"), (heat(n) * 255 * (n < 4)).astype(np.uint8))
        ),
        "heatmap",
    ),
    "no mask in val": Broken(
        "nothing to score",
        "into val",
        lambda f: [save(target_of(f, stem), np.zeros((*SIZE, 3), np.uint8)) for stem in "ef"],
        "multilabel",
    ),
    # points
    "point outside": Broken("points outside", "to the right", point_file("x,y\n5,5\n64,3\n"), "heatmap"),
    "points exchanged": Broken("points outside", "y down", point_file("x,y\n5,60\n3,50\n"), "heatmap"),
    "points as shares": Broken("relative points", "width (64)", point_file("x,y\n.2,.3\n.5,.9\n"), "heatmap"),
    "no point": Broken("no points", "data.leave_out", point_file("x,y\n"), "heatmap", severity="warning", mends=True),
    "no table": Broken("point table", "x,y,label", point_file("x,y\n5,here\n"), "heatmap"),
    "density as image": Broken(
        "scaled densities",
        "data.scale",
        lambda f: all_maps(f, lambda path, n: save(path.with_suffix(".png"), (heat(n) * 255).astype(np.uint8))),
        "heatmap",
        severity="warning",
        options={"heatmap": "density"},
    ),
    # images as maps
    "one map is its image": Broken(
        "target is its image",
        "which file is which",
        lambda f: save(target_of(f, "b"), photo(1)),
        "image",
        severity="warning",
        mends=True,
    ),
    "all maps are their images": Broken(
        "targets are the images",
        "the other folder",
        lambda f: all_maps(f, lambda path, n: save(path, photo(n))),
        "image",
    ),
    "grey among colours": Broken(
        "mixed maps",
        "make all maps with 3 channels",
        lambda f: save(target_of(f, "b").with_suffix(".npy"), photo(1)[..., :2]),
        "image",
    ),
}
"""Broken data sets by description of the fault."""
