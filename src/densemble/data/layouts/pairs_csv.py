"""A CSV file of image and target pairs."""

from pathlib import Path

from densemble.data.layouts.folders import find_named
from densemble.data.layouts.layout import Layout
from densemble.data.layouts.read_files import read_table
from densemble.data.layouts.tables import Row, SampleTable, image_column, read_split, target_column
from densemble.errors import DataError
from densemble.input_files import is_no_folder
from densemble.untrusted import excerpt


def find(path: Path) -> Layout | None:
    """Find a CSV file, or ``pairs.csv`` in a folder.

    The columns are image, target and optionally split, group and points. Other column names are recognized by
    :func:`image_column` and :func:`target_column`. A file without a header has two columns. File names are relative
    to the folder of the CSV file, see :func:`find_named`; rows with missing files are reported as unpaired.

    Raises:
        DataError: the file is not CSV, a column is missing, or a split has an unknown name.
    """
    file = path if path.suffix.lower() == ".csv" and path.is_file() else path / "pairs.csv"
    if not is_no_folder(file):
        return None
    folder, table = file.parent, SampleTable()
    for row in _read_rows(file):
        target, points = (find_named(row[key], folder) if row.get(key) else None for key in ("target", "points"))
        table.add(read_split(row, file), find_named(row["image"], folder), target, points, row.get("group") or None)
    return table.layout(folder, "pairs csv", "column")


def _read_rows(path: Path) -> list[Row]:
    table = read_table(path)
    if not table:
        raise DataError(f"'{path}' is empty; write a line image,target and one line for each pair")
    columns = [cell.lower() for cell in table[0]]
    image = image_column(columns)
    if image is None and not Path(table[0][0]).suffix:
        raise DataError(
            f"'{path}' has the columns {excerpt(', '.join(table[0]))} but none for the images; name them image,target"
        )
    if image is None:
        columns, body = ["image", "target"], table
    else:
        target = target_column(columns, image)
        if target is None:
            raise DataError(
                f"'{path}' has the columns {excerpt(', '.join(columns))} but none for the targets; name it 'target'"
            )
        columns = [{image: "image", target: "target"}.get(name, name) for name in columns]
        body = table[1:]
    for cells in body:
        if len(cells) != len(columns):
            raise DataError(
                f"'{path}' has the line '{excerpt(','.join(cells))}' of {len(cells)} cells, expected {len(columns)}: "
                f"{', '.join(columns)}"
            )
    return [dict(zip(columns, cells, strict=True)) for cells in body]
