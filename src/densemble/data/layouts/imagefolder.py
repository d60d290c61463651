"""Hugging Face's ``imagefolder``: images beside a metadata file that names their maps."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from densemble.data.layouts.folders import find_named, split_folders, split_word
from densemble.data.layouts.layout import Layout
from densemble.data.layouts.read_files import read_json_lines, read_table, well_formed
from densemble.data.layouts.tables import Row, SampleTable, image_column, target_column
from densemble.errors import DataError
from densemble.storage.images import TARGET_SUFFIXES


def find(path: Path) -> Layout | None:
    """``metadata.csv`` or ``metadata.jsonl`` in the folder or in its split folders, with a column that names maps.

    Columns: ``file_name`` and ``mask_file_name`` (any ``*_file_name``) or ``mask``, ``label``, ``depth`` and so on.
    Where the one metadata file names ``train/a.png``, the folder is the split.
    Source: https://huggingface.co/docs/datasets/image_dataset

    Raises:
        DataError: the metadata cannot be read.
    """
    folders = {split: folder for split, folder in split_folders(path).items() if _metadata_file(folder)}
    if not folders and _metadata_file(path):
        folders = {"all": path}
    rows, found = SampleTable(), False
    for split, folder in folders.items():
        found |= _read_folder(split, folder, rows)
    if not found:
        return None
    return rows.layout(path, "imagefolder", "folders")


def _metadata_file(folder: Path) -> Path | None:
    return next((folder / name for name in ("metadata.csv", "metadata.jsonl") if (folder / name).is_file()), None)


def _read_folder(split: str, folder: Path, into: SampleTable) -> bool:
    """Reads a folder's metadata; false where no column of it names maps."""
    file = _metadata_file(folder)
    rows = _read_rows(file) if file else []
    columns = list(dict.fromkeys(name for row in rows for name in row))
    image = image_column(columns)
    target = target_column(columns, image) if image else None
    if image is None or target is None or not _names_maps(rows, target):
        return False
    splits = [_first_word(row[image]) for row in rows if row.get(image)]
    by_folder = split == "all" and None not in splits
    for row in rows:
        if not row.get(image):
            raise DataError(f"'{file}' has a row without {image}; complete or delete it")
        named = _first_word(row[image]) if by_folder else split
        map_file = find_named(row[target], folder) if row.get(target) else None
        into.add(named or split, find_named(row[image], folder), map_file, None, None)
    return True


def _first_word(name: str) -> str | None:
    """The split that the first folder of a name says."""
    return split_word(PurePosixPath(name.replace("\\", "/")).parts[0])


def _names_maps(rows: Sequence[Row], column: str) -> bool:
    """Whether a column holds file names: ``label`` may be a class name as well."""
    return any(row.get(column, "").lower().endswith(TARGET_SUFFIXES) for row in rows)


def _read_rows(path: Path) -> list[Row]:
    if path.suffix == ".csv":
        table = read_table(path)
        return [dict(zip(table[0], cells, strict=False)) for cells in table[1:]]
    content = read_json_lines(path)
    with well_formed(path, "list of one JSON object a line"):
        return [{key: value for key, value in row.items() if isinstance(value, str)} for row in content]
