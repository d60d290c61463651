"""Fixtures: small images and targets in the files of a layout."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

SIZE = (12, 16)


@pytest.fixture
def image() -> Callable[..., Path]:
    """``image(path)`` writes a grey-blue image of 12x16; with ``pixels`` that array instead."""

    def write(path: Path, pixels: Any = None) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.full((*SIZE, 3), (90, 100, 130)) if pixels is None else pixels
        Image.fromarray(np.asarray(values, np.uint8)).save(path)
        return path

    return write


@pytest.fixture
def label_map(image: Callable[..., Path]) -> Callable[..., Path]:
    """``label_map(path, label)`` writes a map of 12x16 that holds one label."""

    def write(path: Path, label: int = 1) -> Path:
        return image(path, np.full(SIZE, label))

    return write
