"""A photo of the size of the known predictions."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.fromarray(np.zeros((24, 31, 3), np.uint8)).save(path := folder / "a.png")
    return path
