"""Pascal VOC, and CVAT's export "Segmentation mask 1.1", which is VOC with a ``labelmap.txt``."""

from pathlib import Path

from densemble.data.layouts.class_names import VOID, read_classes
from densemble.data.layouts.folders import list_files, pair_by_name
from densemble.data.layouts.layout import Layout
from densemble.data.layouts.split_files import read_split_texts, select
from densemble.errors import DataError
from densemble.storage.images import IMAGE_SUFFIXES, TARGET_SUFFIXES

VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


def find(path: Path) -> Layout | None:
    """Find ``JPEGImages/``, ``SegmentationClass/`` and ``ImageSets/Segmentation/*.txt``; void is 255.

    Images that no list names are left out. ``path`` may also contain ``VOC2012/`` or ``VOCdevkit/VOC2012/``.

    Raises:
        DataError: ``JPEGImages/`` is missing, or a list cannot be read.
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
    samples, unpaired = pair_by_name(images.files, targets.files, {})
    lists = read_split_texts(root / "ImageSets" / "Segmentation")
    without_target = [file for name, file in images.files.items() if name not in targets.files]
    splits, missing = select(lists, samples, without_target, root, images_folder)
    classes = read_classes(root)
    return Layout(
        path,
        "voc",
        splits or {"all": samples},
        missing if splits else unpaired,
        "files" if splits else "none",
        classes.names or VOC_CLASSES,
        ignore_index=VOID,
        color_map=classes.colors,
        doubled=images.doubled + targets.doubled,
        default_classes=classes.names is None,
    )
