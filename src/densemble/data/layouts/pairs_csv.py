"""A CSV file that names images and maps."""

from pathlib import Path

from densemble.data.layouts.folders import find_named
from densemble.data.layouts.layout import Layout
from densemble.data.layouts.read_files import read_table
from densemble.data.layouts.tables import Row, SampleTable, image_column, read_split, target_column
from densemble.errors import DataError


def find(path: Path) -> Layout | None:
    """A CSV file, or ``pairs.csv`` in a folder: columns image, target and, if you like, split, group and points.

    Columns may be called otherwise, see :func:`image_column`. Without a header it has two columns. Names are relative
    to the file's folder, see :func:`find_named`; rows that name absent files are reported as unpaired.

    Raises:
        DataError: no CSV, no such columns, or a split of another name.
    """
    file = path if path.suffix.lower() == ".csv" and path.is_file() else path / "pairs.csv"
    if not file.is_file():
        return None
    folder, rows = file.parent, SampleTable()
    for row in _read_rows(file):
        target, points = (find_named(row[key], folder) if row.get(key) else None for key in ("target", "points"))
        rows.add(read_split(row, file), find_named(row["image"], folder), target, points, row.get("group") or None)
    return rows.layout(folder, "pairs csv", "column")


def _read_rows(path: Path) -> list[Row]:
    table = read_table(path)
    if not table:
        raise DataError(f"'{path}' is empty; write a line image,target and one line for each pair")
    columns = [cell.lower() for cell in table[0]]
    image = image_column(columns)
    if image is None and not Path(table[0][0]).suffix:
        raise DataError(
            f"'{path}' has the columns {', '.join(table[0])} but none for the images; name them image,target"
        )
    if image is None:
        columns, body = ["image", "target"], table
    else:
        target = target_column(columns, image)
        if target is None:
            raise DataError(f"'{path}' has the columns {', '.join(columns)} but none for the maps; name it 'target'")
        columns = [{image: "image", target: "target"}.get(name, name) for name in columns]
        body = table[1:]
    for cells in body:
        if len(cells) != len(columns):
            raise DataError(
                f"'{path}' has the line '{','.join(cells)}' of {len(cells)} cells, wanted {len(columns)}: "
                f"{', '.join(columns)}"
            )
    return [dict(zip(columns, cells, strict=True)) for cells in body]
