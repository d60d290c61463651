"""The format "CVAT for images 1.1": ``annotations.xml`` beside the images.

Source: https://docs.cvat.ai/docs/dataset_management/formats/xml_format
"""

from collections import Counter
from pathlib import Path
from xml.etree.ElementTree import Element

from densemble.data.layouts.annotated import AnnotatedImages
from densemble.data.layouts.class_names import class_number, class_numbers, with_background
from densemble.data.layouts.drawn_shapes import Ellipse, Polygons, Runs, Shape, ShapeDrawing, outline
from densemble.data.layouts.folders import ImageIndex, parse_split
from densemble.data.layouts.layout import Layout
from densemble.data.layouts.read_files import read_xml, well_formed
from densemble.errors import DataError
from densemble.input_files import is_no_folder

_DRAWN = ("polygon", "mask", "ellipse")
_UNDRAWN = ("box", "polyline", "points", "cuboid", "skeleton")


def find(path: Path) -> Layout | None:
    """Find ``annotations.xml`` with the images anywhere below its folder.

    Polygons, ellipses and masks are drawn in the order of their ``z_order``. Boxes, lines and points are counted and
    left out. Class 0 is the background, followed by the labels in the order of the file. Subsets named train, val and
    test are the splits if every image has one.

    Raises:
        DataError: the XML cannot be read, contains video tracks, or contains no region.
    """
    file = path / "annotations.xml"
    if not is_no_folder(file):
        return None
    root = read_xml(file)
    if root.tag != "annotations":
        return None
    if root.find("track") is not None:
        raise DataError(f"'{file}' holds tracks of a video; export it as 'CVAT for images 1.1'")
    images = root.findall("image")
    if not any(image.find(tag) is not None for image in images for tag in _DRAWN):
        raise DataError(f"'{file}' holds no polygons and no masks; annotate with one of them")
    classes = with_background(_label_names(root))
    numbers = class_numbers(classes)
    subsets = [parse_split(image.get("subset", "")) for image in images]
    annotated = AnnotatedImages(ImageIndex(path))
    for image, subset in zip(images, subsets, strict=True):
        with well_formed(file, "file of 'CVAT for images 1.1'"):
            name, size = image.attrib["name"], (int(image.attrib["height"]), int(image.attrib["width"]))
            elements = sorted(
                (element for element in image if element.tag in _DRAWN), key=lambda e: int(e.get("z_order", "0"))
            )
            shapes = (_shape(element, class_number(element.attrib["label"], numbers)) for element in elements)
            drawing = ShapeDrawing(file, name, size, tuple(shapes))
        annotated.add((subset or "all") if None not in subsets else "all", name, file, drawing)
    undrawn = Counter(element.tag for image in images for element in image if element.tag in _UNDRAWN)
    return annotated.layout("cvat", classes, undrawn=undrawn)


def _label_names(root: Element) -> list[str]:
    listed = (label.findtext("name") for label in root.iterfind("meta//labels/label"))
    drawn = (shape.get("label") for tag in _DRAWN for shape in root.iterfind(f"image/{tag}"))
    return list(dict.fromkeys(name for name in listed if name)) or sorted({name for name in drawn if name})


def _shape(element: Element, label: int) -> Shape:
    if element.tag == "polygon":
        points = element.attrib["points"].replace(";", ",").split(",")
        return Polygons(label, (outline([float(number) for number in points]),))
    if element.tag == "ellipse":
        x, y, along, across = (float(element.attrib[name]) for name in ("cx", "cy", "rx", "ry"))
        return Ellipse(label, (x, y), (along, across), float(element.get("rotation", "0")))
    left, top, height, width = (int(element.attrib[name]) for name in ("left", "top", "height", "width"))
    counts = tuple(int(count) for count in element.attrib["rle"].split(","))
    return Runs(label, counts, by_columns=False, box=(left, top, height, width))
