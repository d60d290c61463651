"""Pascal VOC, and CVAT's export "Segmentation mask 1.1", which is VOC with a ``labelmap.txt``."""

from pathlib import Path

from densemble.data.layouts.class_names import VOID, read_classes
from densemble.data.layouts.folders import list_files
from densemble.data.layouts.layout import Layout, Sample
from densemble.data.layouts.split_files import read_split_texts, select
from densemble.errors import DataError
from densemble.storage.images import IMAGE_SUFFIXES, TARGET_SUFFIXES

VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


def find(path: Path) -> Layout | None:
    """``JPEGImages/``, ``SegmentationClass/`` and ``ImageSets/Segmentation/*.txt``; void is 255.

    Images that no list names are left out. ``VOCdevkit/VOC2012/`` above it is entered.

    Raises:
        DataError: there are masks without images, or lists that cannot be read.
    """
    roots = (path, *sorted(path.glob("VOC20*")), *sorted(path.glob("VOCdevkit/VOC20*")))
    root = next((folder for folder in roots if (folder / "SegmentationClass").is_dir()), None)
    if root is None:
        return None
    images_folder = root / "JPEGImages"
    if not images_folder.is_dir():
        raise DataError(
            f"'{root}' has SegmentationClass/ but no JPEGImages/; export with the images, or put them there"
        )
    images = list_files(images_folder, IMAGE_SUFFIXES)
    targets = list_files(root / "SegmentationClass", TARGET_SUFFIXES)
    pairs = tuple(
        Sample(images.files[name], targets.files[name], name=None if name == images.files[name].stem else name)
        for name in sorted(images.files.keys() & targets.files.keys())
    )
    without_map = tuple(file for name, file in images.files.items() if name not in targets.files)
    without_image = tuple(file for name, file in targets.files.items() if name not in images.files)
    lists = read_split_texts(root / "ImageSets" / "Segmentation")
    splits, missing = select(lists, pairs, without_map, root, images_folder)
    listed = read_classes(root)
    return Layout(
        path,
        "voc",
        splits or {"all": pairs},
        missing if splits else without_map + without_image,
        "files" if splits else "none",
        listed.names or VOC_CLASSES,
        ignore_index=VOID,
        color_map=listed.colors,
        doubled=images.doubled + targets.doubled,
        usual_classes=listed.names is None,
    )
