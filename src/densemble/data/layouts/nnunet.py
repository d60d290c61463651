"""nnU-Net v2: imagesTr/CASE_0000.png beside labelsTr/CASE.png, described by dataset.json."""

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from densemble.data.layouts.folders import list_files
from densemble.data.layouts.layout import Layout, Sample
from densemble.data.layouts.read_files import read_json, well_formed
from densemble.errors import DataError
from densemble.input_files import is_no_folder
from densemble.storage.images import IMAGE_SUFFIXES, TARGET_SUFFIXES

_VOLUMES = (".nii", ".nii.gz", ".nrrd", ".nrrd.gz", ".mha", ".mhd", ".gipl")


def find(path: Path) -> Layout | None:
    """Find ``imagesTr``, ``labelsTr`` and ``dataset.json``; files from ``_0001`` on are bands of ``_0000``.

    ``imagesTs`` is the test split if ``labelsTs`` exists. The first fold of ``splits_final.json``, if it exists,
    defines train and val.
    Source: https://github.com/MIC-DKFZ/nnUNet/blob/master/documentation/dataset_format.md

    Raises:
        DataError: the files are volumes or unreadable, or labels are regions or not numbered 0, 1, 2, ...
    """
    description = path / "dataset.json"
    if not ((path / "imagesTr").is_dir() and is_no_folder(description)):
        return None
    content = read_json(description)
    with well_formed(description, "dataset.json of nnU-Net"):
        _require_images(path, content)
        classes, ignore_index = _read_labels(content["labels"], description)
    cases, unpaired, doubled = _read_cases(path / "imagesTr", path / "labelsTr")
    splits = _read_first_fold(path / "splits_final.json", cases) or {"all": tuple(cases.values())}
    if (path / "labelsTs").is_dir():
        test_cases, test_unpaired, test_doubled = _read_cases(path / "imagesTs", path / "labelsTs")
        if "all" in splits:
            splits = {"train": splits["all"]}
        splits["test"] = tuple(test_cases.values())
        unpaired, doubled = unpaired + test_unpaired, doubled + test_doubled
    split_by = "files" if "val" in splits else "folders" if "test" in splits else "none"
    return Layout(path, "nnu-net", splits, unpaired, split_by, classes, ignore_index, doubled=doubled)


def _require_images(path: Path, content: Any) -> None:
    ending = content.get("file_ending", "")
    volume = ending if ending in _VOLUMES else None
    volume = volume or next((file.name for file in (path / "imagesTr").iterdir() if file.name.endswith(_VOLUMES)), None)
    if volume:
        raise DataError(f"'{path}' holds volumes ({volume}); save their slices as 2-D images (.png or .tif)")


def _read_labels(labels: Any, path: Path) -> tuple[tuple[str, ...], int | None]:
    if all(isinstance(value, str) for value in labels.values()):  # version 1 writes number: name
        labels = {name: int(number) for number, name in labels.items()}
    if any(isinstance(value, list) for value in labels.values()):
        raise DataError(f"'{path}' has labels that are regions of several numbers; give each label one number")
    numbers = {name: int(number) for name, number in labels.items()}
    ignore_index = numbers.pop("ignore", None)
    names = tuple(sorted(numbers, key=numbers.__getitem__))
    if [numbers[name] for name in names] != list(range(len(names))):
        raise DataError(f"'{path}' numbers its labels {sorted(numbers.values())}; number them 0, 1, 2, ...")
    return names, ignore_index


def _read_cases(
    images: Path, labels: Path
) -> tuple[dict[str, Sample], tuple[Path, ...], tuple[tuple[Path, Path], ...]]:
    """Samples by case, unpaired files, and pairs of files with the same name."""
    image_files = list_files(images, IMAGE_SUFFIXES)
    targets = list_files(labels, TARGET_SUFFIXES)
    bands: defaultdict[str, dict[int, Path]] = defaultdict(dict)
    unpaired = []
    for name, file in image_files.files.items():
        match = re.fullmatch(r"(.+)_(\d{4})", name)
        if match:
            bands[match[1]][int(match[2])] = file
        else:
            unpaired.append(file)
    expected = {number for files in bands.values() for number in files}
    cases = {}
    for case, files in sorted(bands.items()):
        if case not in targets.files:
            unpaired += files.values()
        elif set(files) != expected:
            unpaired += [images / f"{case}_{number:04d}{files[min(files)].suffix}" for number in expected - set(files)]
        else:
            first, *others = (files[number] for number in sorted(files))
            cases[case] = Sample(first, targets.files[case], bands=tuple(others), name=case)
    unpaired += [file for case, file in targets.files.items() if case not in bands]
    return cases, tuple(unpaired), image_files.doubled + targets.doubled


def _read_first_fold(path: Path, cases: dict[str, Sample]) -> dict[str, tuple[Sample, ...]]:
    if not is_no_folder(path):
        return {}
    content = read_json(path)
    with well_formed(path, "list of folds of nnU-Net"):
        names = {split: list(content[0][split]) for split in ("train", "val")}
        absent = [name for split in names.values() for name in split if name not in cases]
        if absent:
            raise ValueError(f"it names case '{absent[0]}', which does not exist or has no target")
        return {split: tuple(cases[name] for name in sorted(listed)) for split, listed in names.items()}
