"""Tables that name many files are answered in seconds: time grows with the number of rows, not with its square."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from densemble.data.folder import FolderData
from densemble.data.targets import draw_points
from densemble.errors import DataError
from densemble.storage.points import read_point_table

ROWS = 100_000
_FILES = 100
_ROWS_PER_SECOND = 2_000  # a fifth of the measured rate


def _write_files(folder: Path, *parts: str) -> None:
    for part in parts:
        (folder / part).mkdir(parents=True)
        for number in range(_FILES):
            Image.fromarray(np.zeros((16, 24), np.uint8)).save(folder / part / f"{number:06d}.png")


def _pairs(folder: Path, rows: int) -> None:
    _write_files(folder, "images", "targets")
    names = (f"{number % _FILES:06d}.png" for number in range(rows))
    lines = (
        f"images/{name},targets/{name},{'val' if number % 5 == 0 else 'train'}" for number, name in enumerate(names)
    )
    (folder / "pairs.csv").write_text("image,target,split\n" + "\n".join(lines))


def _other_computer(folder: Path, rows: int) -> None:
    _write_files(folder, "images", "targets")
    lines = (f"/home/a/b/images/{number:06d}.png,C:\\d\\e\\targets\\{number:06d}.png" for number in range(rows))
    (folder / "pairs.csv").write_text("image,target\n" + "\n".join(lines))


def _long_names(folder: Path, rows: int) -> None:
    _write_files(folder, "images", "targets")
    lines = (f"images/{number:0300d}.png,targets/{number:06d}.png" for number in range(rows // 10))
    (folder / "pairs.csv").write_text("image,target\n" + "\n".join(lines))


def _coco(folder: Path, images: int, categories: int, annotations: int) -> None:
    _write_files(folder, "images")
    content = {
        "images": [
            {"id": number, "file_name": f"{number:06d}.png", "height": 16, "width": 24} for number in range(images)
        ],
        "categories": [{"id": number, "name": f"class {number}"} for number in range(categories)],
        "annotations": [
            {
                "id": number, "image_id": number % images, "category_id": number % categories, "area": 10,
                "bbox": [1, 1, 5, 5], "segmentation": [[1, 1, 5, 1, 5, 5]],
            }
            for number in range(annotations)
        ],
    }  # fmt: skip
    (folder / "annotations.json").write_text(json.dumps(content))


def _label_studio(folder: Path, rows: int) -> None:
    _write_files(folder, "images")
    (folder / "masks").mkdir()
    mask = (folder / "images" / "000000.png").read_bytes()
    tasks = []
    for number in range(rows):
        if number < _FILES:
            (folder / "masks" / f"task-{number}-annotation-{number}-by-1-tag-crack-0.png").write_bytes(mask)
        value: dict[str, Any] = (
            {"brushlabels": ["crack"]} if number < _FILES else {"brushlabels": ["crack"], "rle": [1]}
        )
        size = {"original_width": 24, "original_height": 16}
        result = {"id": "r", "type": "brushlabels", "from_name": "tag", "to_name": "image", **size, "value": value}
        data = {"image": f"/data/upload/1/1a2b3c4d-{number:06d}.png"}
        tasks.append({"id": number, "data": data, "annotations": [{"id": number, "result": [result]}]})
    (folder / "export.json").write_text(json.dumps(tasks))


def _cvat(folder: Path, rows: int) -> None:
    _write_files(folder, "images")
    shape = '<polygon label="a" points="1,1;5,1;5,5" z_order="0"></polygon>'
    images = (
        f'<image id="{number}" name="{number:06d}.png" width="24" height="16">{shape}</image>' for number in range(rows)
    )
    labels = "<meta><task><labels><label><name>a</name></label></labels></task></meta>"
    (folder / "annotations.xml").write_text(
        f"<annotations><version>1.1</version>{labels}{''.join(images)}</annotations>"
    )


def _split_files(folder: Path, rows: int) -> None:
    _write_files(folder, "images", "targets")
    names = [f"{number:06d}" for number in range(rows)]
    (folder / "train.txt").write_text("\n".join(names[1::2]))
    (folder / "val.txt").write_text("\n".join(names[::2]))


TABLES: dict[str, Callable[[Path, int], None]] = {
    "pairs": _pairs,
    "names of another computer": _other_computer,
    "names that are too long": _long_names,
    "COCO images": lambda folder, rows: _coco(folder, rows, 2, rows),
    "COCO annotations": lambda folder, rows: _coco(folder, _FILES, 2, rows),
    "COCO categories": lambda folder, rows: _coco(folder, _FILES, rows, rows),
    "Label Studio": _label_studio,
    "CVAT": _cvat,
    "split files": _split_files,
}


@pytest.mark.parametrize("table", TABLES)
def test_tables(table: str, share: float, report: Callable[..., None], tmp_path: Path) -> None:
    rows = int(share * share * ROWS)
    TABLES[table](tmp_path, rows)
    started = time.process_time()
    try:
        FolderData(tmp_path, "segmentation")
    except DataError as error:  # most files do not exist
        assert "no partner" in str(error), error
    seconds = time.process_time() - started
    too_slow = [f"{table}: {seconds:.1f} s for {rows} rows"] if seconds > max(rows / _ROWS_PER_SECOND, 2) else []
    report(cases=rows, problems=too_slow, note=f"{table}: {seconds:.1f} s")


def test_points_and_names_left_out(share: float, report: Callable[..., None], tmp_path: Path) -> None:
    rows = int(share * share * ROWS)
    (tmp_path / "points.csv").write_text("x,y\n" + "\n".join(f"{number % 24},{number % 16}" for number in range(rows)))
    _split_files(tmp_path / "set", 2)
    with (tmp_path / "left out.txt").open("w") as file:
        file.writelines(f"{number:06d}\n" for number in range(rows))
    started = time.process_time()
    points, labels = read_point_table(tmp_path / "points.csv")
    assert draw_points(points, labels, 1, (16, 24), 1.0, density=True).sum() == pytest.approx(rows, rel=1e-3)
    with pytest.raises(DataError, match="no pair"):
        FolderData(tmp_path / "set", "segmentation", skip_unpaired=True, leave_out=str(tmp_path / "left out.txt"))
    seconds = time.process_time() - started
    report(cases=rows, problems=[] if seconds < 20 else [f"{seconds:.1f} s"], note=f"{seconds:.1f} s")
