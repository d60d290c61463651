"""Data sets whose targets are drawn from one annotation file for many images (COCO, CVAT, Label Studio)."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from densemble.data.layouts.folders import ImageIndex, sort_splits
from densemble.data.layouts.layout import Layout, Sample, TargetDrawing


class AnnotatedImages:
    """Collect the annotated images below a folder."""

    def __init__(self, index: ImageIndex) -> None:
        self._index = index
        self._splits: dict[str, list[Sample]] = {}
        self._missing: list[Path] = []

    def add(self, split: str, name: str, source: Path, drawing: TargetDrawing) -> None:
        """Add an image by its name in the annotation file ``source``; the split ``all`` means no split."""
        image = self._index.find(name, None if split == "all" else split)
        samples = self._splits.setdefault(split, [])
        if image is None:
            self._missing.append(self._index.root / PurePosixPath(name.replace("\\", "/")).name)
        else:
            samples.append(Sample(image, source, drawing=drawing))

    def layout(
        self,
        name: str,
        classes: tuple[str, ...],
        ignore_index: int | None = None,
        undrawn: Mapping[str, int] | None = None,
    ) -> Layout:
        """Build the layout; missing images and unannotated images beside annotated ones are unpaired."""
        root = self._index.root
        return Layout(
            root,
            name,
            sort_splits(self._splits, root),
            (*dict.fromkeys(self._missing), *self._index.unlisted()),
            "none" if "all" in self._splits else "files",
            classes,
            ignore_index,
            doubled=tuple(self._index.doubled),
            undrawn=dict(undrawn or {}),
        )
