"""Hugging Face's ``imagefolder``: images beside a metadata file that names their targets."""

from pathlib import Path, PurePosixPath

from densemble.data.layouts.folders import find_named, parse_split, split_folders
from densemble.data.layouts.layout import Layout
from densemble.data.layouts.read_files import read_json_lines, read_table, well_formed
from densemble.data.layouts.tables import Row, SampleTable, image_column, target_column
from densemble.errors import DataError
from densemble.input_files import is_no_folder
from densemble.storage.images import TARGET_SUFFIXES


def find(path: Path) -> Layout | None:
    """Find ``metadata.csv`` or ``metadata.jsonl`` in the folder or its split folders, with a column of target names.

    Columns: ``file_name`` and ``mask_file_name`` (any ``*_file_name``) or ``mask``, ``label``, ``depth`` and so on.
    If a single metadata file names images such as ``train/a.png``, the first folder is the split.
    Source: https://huggingface.co/docs/datasets/image_dataset

    Raises:
        DataError: the metadata cannot be read.
    """
    folders = {split: folder for split, folder in split_folders(path).items() if _metadata_file(folder)}
    if not folders and _metadata_file(path):
        folders = {"all": path}
    table = SampleTable()
    names_targets = [_read_folder(split, folder, table) for split, folder in folders.items()]
    return table.layout(path, "imagefolder", "folders") if any(names_targets) else None


def _metadata_file(folder: Path) -> Path | None:
    return next((folder / name for name in ("metadata.csv", "metadata.jsonl") if is_no_folder(folder / name)), None)


def _read_folder(split: str, folder: Path, table: SampleTable) -> bool:
    """Add the metadata of a folder to the table; false if no column names target files."""
    file = _metadata_file(folder)
    rows = _read_rows(file) if file else []
    columns = list(dict.fromkeys(name for row in rows for name in row))
    image = image_column(columns)
    if image is None:
        return False
    target = target_column(columns, image)
    # A column such as ``label`` may also hold class names.
    if target is None or not any(row.get(target, "").lower().endswith(TARGET_SUFFIXES) for row in rows):
        return False
    splits = [_first_folder_split(row[image]) for row in rows if row.get(image)]
    by_folder = split == "all" and None not in splits
    for row in rows:
        if not row.get(image):
            raise DataError(f"'{file}' has a row without {image}; complete or delete it")
        row_split = _first_folder_split(row[image]) if by_folder else split
        target_file = find_named(row[target], folder) if row.get(target) else None
        table.add(row_split or split, find_named(row[image], folder), target_file, None, None)
    return True


def _first_folder_split(name: str) -> str | None:
    """Split named by the first folder of a path."""
    return parse_split(PurePosixPath(name.replace("\\", "/")).parts[0])


def _read_rows(path: Path) -> list[Row]:
    if path.suffix == ".csv":
        cell_rows = read_table(path)
        return [dict(zip(cell_rows[0], cells, strict=False)) for cells in cell_rows[1:]]
    content = read_json_lines(path)
    with well_formed(path, "list of JSON objects, one per line"):
        return [{key: value for key, value in row.items() if isinstance(value, str)} for row in content]
