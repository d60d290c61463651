"""Pipes, devices, sockets, folders and links in place of files never block, and cost only themselves."""

import os
import signal
import socket
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from robustness.small_runs import Undisturbed

import densemble as de
from densemble.data.decoded_cache import file_digests
from densemble.data.folder import FolderData
from densemble.data.layouts import find_layout
from densemble.data.read_pairs import is_point_table
from densemble.errors import DensembleError
from densemble.nets.local_weights import read_state
from densemble.storage.geo import read_georeference
from densemble.storage.images import image_size, read_image, read_labels, read_values
from densemble.storage.large_image import is_large, open_large
from densemble.storage.points import read_point_table

SECONDS = 5.0
PIXELS = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(path.parent)  # the path of a socket has at most 108 bytes
        try:
            server.bind(path.name)
        finally:
            os.chdir(here)


KINDS: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "link to a pipe": lambda path: (os.mkfifo(path.parent / "pipe"), path.symlink_to("pipe")),
    "zeros": lambda path: path.symlink_to("/dev/zero"),
    "null": lambda path: path.symlink_to("/dev/null"),
    "terminal": lambda path: path.symlink_to("/dev/tty"),
    "memory": lambda path: path.symlink_to("/proc/self/mem"),
    "messages": lambda path: path.symlink_to("/proc/kmsg"),
    "socket": _socket,
    "folder": lambda path: path.mkdir(),
    "broken link": lambda path: path.symlink_to("absent"),
    "loop": lambda path: path.symlink_to(path.name),
}


def _data(path: Path, place: str, **options: Any) -> FolderData:
    """A data set in which ``place`` is moved to ``path``."""
    return FolderData(path.parents[place.count("/")], "segmentation", **options)


def _write_set(folder: Path) -> None:
    for split, part in product(("train", "val"), ("images", "targets")):
        (folder / split / part).mkdir(parents=True)
        for number in range(2):
            pixels = PIXELS if part == "images" else PIXELS[..., 0] % 2
            Image.fromarray(pixels).save(folder / split / part / f"{number}.png")


def _check(path: Path, place: str) -> None:
    """Check a data set; the pair with the special file must be reported, or the set refused."""
    report = _data(path, place).check()
    if not any(path.name in problem["message"] for problem in report["problems"] if problem["severity"] == "error"):
        raise AssertionError(f"{path} is not reported")
    raise DensembleError(f"reported {path}")


def _windows(path: Path) -> None:
    with open_large(path) as image:
        image.read(0, 0, 1, 1)


def _georeference(path: Path) -> None:
    beside = path.with_name(path.name.removesuffix(".aux.xml"))
    rasterio = pytest.importorskip("rasterio")
    options = {"driver": "GTiff", "height": 16, "width": 24, "count": 1, "dtype": "uint8", "crs": "EPSG:3857"}
    with rasterio.open(beside, "w", transform=rasterio.Affine(2, 0, 5, 0, -2, 9), **options) as file:
        file.write(PIXELS[:, :, 0], 1)
    read_georeference(beside)


PLACES: dict[str, Callable[[Path], object]] = {
    "image.png": read_image,
    "labels.tif": read_labels,
    "values.npy": read_values,
    "size.npz": image_size,
    "large.tif": is_large,
    "windows.npy": _windows,
    "windows.zarr": _windows,
    "points.csv": read_point_table,
    "points.json": read_point_table,
    "points.npy": lambda path: is_point_table(path) or read_point_table(path),
    "weights.safetensors": read_state,
    "weights.pth": read_state,
    "artifact.safetensors": de.load,
    "archive.zip": find_layout,
    "pairs.csv": lambda path: find_layout(path.parent),
    "classes.txt": lambda path: _data(path, "classes.txt"),
    "labelmap.txt": lambda path: _data(path, "labelmap.txt"),
    "class_dict.csv": lambda path: _data(path, "class_dict.csv"),
    "train/images/0.png": lambda path: _check(path, "train/images/0.png"),
    "val/targets/1.png": lambda path: _check(path, "val/targets/1.png"),
    "left out.txt": lambda path: _data(path, "left out.txt", leave_out=str(path)),
    "colours.json": lambda path: _data(path, "colours.json", color_map=str(path)),
    "raster.tif.aux.xml": _georeference,
}
# A link that leads nowhere, or a folder, is as good as no file where a file may be absent.
OPTIONAL = ("pairs.csv", "classes.txt", "labelmap.txt", "class_dict.csv", "raster.tif.aux.xml")
ABSENT = ("folder", "broken link", "loop")
# GDAL reads what does not block it.
HARMLESS = {("memory", "raster.tif.aux.xml"), ("messages", "raster.tif.aux.xml")}
IN_SETS = ("pairs.csv", "classes.txt", "labelmap.txt", "class_dict.csv", "left out.txt", "colours.json")


class _Hang(Exception):
    pass


def _hang(number: int, frame: object) -> None:
    raise _Hang


def _problem(kind: str, place: str, folder: Path) -> str | None:
    folder.mkdir()
    if place in IN_SETS or "/" in place:
        _write_set(folder)
    path = folder / place
    path.unlink(missing_ok=True)
    KINDS[kind](path)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        PLACES[place](path)
    except DensembleError as error:
        return None if path.name in str(error) or kind in ABSENT else f"{kind} as {place}: no name in: {error}"
    except BaseException as error:  # a hang, too
        return f"{kind} as {place}: {type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    is_allowed = (kind in ABSENT and place in OPTIONAL) or (kind, place) in HARMLESS
    return None if is_allowed else f"{kind} as {place}: no error"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_special_files(drawn: Callable[..., list[Any]], report: Callable[..., None], tmp_path: Path) -> None:
    before = signal.signal(signal.SIGALRM, _hang)
    try:
        cases = drawn(product(KINDS, PLACES))
        found = [_problem(kind, place, tmp_path / str(number)) for number, (kind, place) in enumerate(cases)]
    finally:
        signal.signal(signal.SIGALRM, before)
    report(cases=len(cases), problems=[problem for problem in found if problem])


def test_digests_do_not_read_devices(tmp_path: Path) -> None:
    (tmp_path / "zeros").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    assert file_digests([tmp_path / "zeros", tmp_path / "pipe"]) == ["", ""]


NAMES = (
    "a" * 251, "é" * 120, "x" * 243, "new\nline", "tab\tstop", "\x1b[31mred", "emoji 😀", "-dash", "--help", "=1+2",
    "CASE", "case", "Case", " blank ", "'\"`$(", "[x]", "*", "?", "%s%d", "{x}", "back\\slash", "con", "dot..", "..",
    "\u202eright", "a\u0301", "\u00e1", "\u2400", "#hash", "~tilde", "&amp;<b>", "\udcff\udcfe",
)  # fmt: skip
"""Stems of image files; the last is not UTF-8."""


def test_names_of_images(
    forked: Callable[[], Any], undisturbed: Undisturbed, report: Callable[..., None], tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in NAMES:
        Image.fromarray(PIXELS).save(tmp_path / "image.png")
        (tmp_path / "image.png").rename(folder / f"{name}.png")
    special = [kind for kind in KINDS if kind not in ("folder", "null", "terminal", "messages")]
    for number, kind in enumerate(special):
        KINDS[kind](folder / f"special {number}.png")
    with forked() as space:
        arguments = ["predict", undisturbed.artifact, folder, "-o", tmp_path / "out", "--save", "map,csv"]
        done = space.run(*arguments, timeout=60)
        again = space.run(*arguments, timeout=60)
        matched = space.run("predict", undisturbed.artifact, f"{folder}/s*.png", "-o", tmp_path / "glob", timeout=60)
    problems = [problem for problem in (done.problem(5), again.problem(5), matched.problem(3)) if problem]
    maps = list((tmp_path / "out").glob("*_map.*"))
    problems += [] if len(maps) == len(NAMES) else [f"{len(maps)} maps of {len(NAMES)} images"]
    problems += [] if done.stderr.count("failed: ") == len(special) else [done.stderr]
    report(cases=len(NAMES) + len(special), problems=problems)
