"""Data sets whose maps are drawn from one annotation file for many images (COCO, CVAT, Label Studio)."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from densemble.data.layouts.folders import ImageIndex, uniquely_named
from densemble.data.layouts.layout import Drawing, Layout, Sample
from densemble.data.layouts.tables import in_order


class AnnotatedImages:
    """Gathers what annotation files say of the images below a folder."""

    def __init__(self, index: ImageIndex) -> None:
        self._index = index
        self._splits: dict[str, list[Sample]] = {}
        self._missing: list[Path] = []

    def add(self, split: str, name: str, source: Path, drawing: Drawing) -> None:
        """Takes an image by the name that the annotation file ``source`` gives it; ``all`` is no split."""
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
        """The layout; unpaired are images that are named and absent, or that lie unnamed beside those named."""
        root = self._index.root
        return Layout(
            root,
            name,
            {split: uniquely_named(samples, root) for split, samples in in_order(self._splits).items()},
            (*dict.fromkeys(self._missing), *self._index.unlisted()),
            "none" if "all" in self._splits else "files",
            classes,
            ignore_index,
            doubled=tuple(self._index.doubled),
            undrawn=dict(undrawn or {}),
        )
