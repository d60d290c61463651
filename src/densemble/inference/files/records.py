"""Records: what the files of a folder say about each image, kept on disk until the last image is predicted.

``records.jsonl`` holds one line per image and stays in the folder, so that a run that was interrupted, or that finds
images of an earlier run, writes the same files as one that predicts all images.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from densemble.inference.files.json_lines import JsonLines
from densemble.inference.formats import Entry, Format, FormatOptions
from densemble.inference.formats.format import Record
from densemble.tasks import Task

RECORDS = "records.jsonl"


class Records(JsonLines):
    """The records of one output folder. Memory holds the position of each line.

    Args:
        folder: folder of the predictions; must exist.
        settings: see :class:`densemble.inference.files.journal.Journal`.

    Raises:
        ResourceError: the file cannot be read or written.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        super().__init__(folder / RECORDS, settings)
        self._positions = {
            str(values.get("name")): position
            for position, values in self.lines()
            if isinstance(values.get("records"), dict)
        }

    def __contains__(self, name: str) -> bool:
        return name in self._positions

    def add(self, name: str, records: Mapping[str, Record]) -> None:
        """Append the records of an image, by format; they replace those that an earlier run wrote.

        Raises:
            ResourceError: the file cannot be written.
        """
        self._positions[name] = self.append({"name": name, "records": records})

    def read(self, names: Collection[str], kind: str) -> Iterator[Record]:
        """Yield the records of one format for images in order.

        Raises:
            ResourceError: the file cannot be read.
        """
        for values in self.at(self._positions[name] for name in names):
            yield values["records"][kind]


@dataclass(frozen=True)
class FolderEntries:
    """The entries of a file for all images of a folder; can be iterated several times.

    Attributes:
        records: records of the images.
        kind: name of the format.
        images: name of each image and its path in the file.
    """

    records: Records
    kind: str
    images: Mapping[str, str]

    def __iter__(self) -> Iterator[Entry]:
        records = self.records.read(self.images, self.kind)
        return (Entry(image, record) for image, record in zip(self.images.values(), records, strict=True))


def paths_in_file(images: Sequence[tuple[str, PurePath | None]]) -> dict[str, str]:
    """Path of each image relative to the deepest folder that holds all images, by name; the name without a file.

    Args:
        images: name and absolute path of each image. On Windows the images may be on several drives; then the paths
            are absolute.
    """
    files = [path for _, path in images if path is not None]
    folders = files[0].parents if files else ()
    common = next((folder for folder in folders if all(path.is_relative_to(folder) for path in files)), None)
    return {
        name: name if path is None else (path.relative_to(common) if common else path).as_posix()
        for name, path in images
    }


def write_folder_files(
    folder: Path,
    rows: Mapping[str, Format],
    images: Sequence[tuple[str, Path | None]],
    records: Records,
    task: Task,
    options: FormatOptions,
) -> list[Path]:
    """Write one file per format.

    Args:
        folder: output folder.
        rows: formats by name, each with one file per folder.
        images: name and path of each image in the order of the file.
        records: holds all images.
        task: task of the maps.
        options: options of the formats.

    Raises:
        ResourceError: a file cannot be written.
    """
    paths = paths_in_file([(name, path and path.absolute()) for name, path in images])
    for kind, row in rows.items():
        row.write(folder / row.file, FolderEntries(records, kind, paths), task, options)
    return [folder / row.file for row in rows.values()]
