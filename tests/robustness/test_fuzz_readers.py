"""Mutated texts: each reader returns values or raises an error of densemble, whatever it gets."""

import json
import random
import struct
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from densemble.config import make_config, read_config
from densemble.data.folder import FolderData
from densemble.data.layouts.read_files import read_json, read_json_lines, read_table, read_xml
from densemble.errors import DensembleError
from densemble.storage.artifact import describe
from densemble.storage.description import member_spec, require_part_values
from densemble.storage.points import read_point_table
from densemble.untrusted import Unreadable

ROOT = Path(__file__).parents[1]
CASES = 10_000
TOKENS = (
    *("null", "true", "-1", "0", "1e999", "NaN", "Infinity", "9" * 5000, "0x" + "f" * 100, "2024-13-45", "1:99:99"),
    *("[", "]", "{", "}", ",", ":", '"', "'", "\\", "\\ud800", "\n", "\t", "\0", "\x1b[2J", "\u202e", "\ufeff"),
    *("&a ", "*a", "<<: *a", "!!int x", "!!python/object:os.system x", "!!binary *", "? ", "- ", "| ", "> ", "% "),
    *("[" * 200, "{a: " * 200, "- " * 200, "..\\", "../" * 9, "os:abort", "resdeconv*99999", "<!DOCTYPE x>", "&lt;"),
    *(".inf", "@", "`", "<a>", "\U0010ffff", "a.png", "train"),
)  # fmt: skip


def mutated(texts: list[str], draw: random.Random) -> bytes:
    """One of the texts after one to four changes: of bytes, of tokens, and of parts in the same or another text."""
    text = draw.choice(texts)
    for _ in range(draw.randrange(1, 5)):
        place = draw.randrange(len(text) + 1)
        match draw.randrange(6):
            case 0:
                text = text[:place] + draw.choice(TOKENS) + text[place:]
            case 1:
                text = text[:place] + text[place + draw.randrange(1, 40) :]
            case 2:
                other = draw.choice(texts)
                start = draw.randrange(len(other) + 1)
                text = text[:place] + other[start : start + draw.randrange(1, 60)] + text[place:]
            case 3:
                words = text.split(" ")
                a, b = draw.randrange(len(words)), draw.randrange(len(words))
                words[a], words[b] = words[b], words[a]
                text = " ".join(words)
            case 4:
                text = text[:place] + draw.choice(TOKENS) + text[place + draw.randrange(1, 12) :]
            case _:
                text = text.replace(draw.choice(("1", "0", '"', ",", ":", "e", "]")), draw.choice(TOKENS[:8]), 1)
    content = bytearray(text.encode("utf-8", "surrogatepass"))
    if content and draw.random() < 0.2:
        content[draw.randrange(len(content))] = draw.randrange(256)
    return bytes(content)


def problems_of(read: Callable[[Path], Any], texts: list[str], path: Path, count: int) -> Iterator[str]:
    for number in range(count):
        content = mutated(texts, random.Random(number))
        path.write_bytes(content)
        try:
            read(path)
        except (DensembleError, Unreadable) as error:
            if len(str(error)) > 5000:
                yield f"{number}: a message of {len(str(error))} characters"
        except Exception as error:
            yield f"{number}: {type(error).__name__} {str(error)[:200]} for {content[:200]!r}"


SETTINGS = [
    (ROOT / "written_before" / "run" / "run.yaml").read_text(),
    *(file.read_text() for file in sorted((ROOT.parent / "examples").rglob("*.yaml"))),
    "task: segmentation\nmembers: [resdeconv*3, {backbone: alexnet, head: fpn, min_size: 6x8}]\n"
    "base: &b {epochs: 2, learning_rate: 1.0e-3}\ntraining: {<<: *b, batch_size: 8}\n"
    "data: {classes: [a, b], label_map: {255: 1, 0: 0}, image_range: [0, 4095.5], bands: [0, 1, 2]}\n",
]


def header_text() -> str:
    content = (ROOT / "written_before" / "all.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return content[8 : 8 + length].decode()


def read_header(path: Path) -> None:
    """Read an artifact whose header is the content of a file."""
    header = path.read_bytes()
    artifact = path.with_name("a.safetensors")
    artifact.write_bytes(struct.pack("<Q", len(header)) + header + bytes(100))
    describe(artifact)


def read_description(path: Path) -> None:
    """Read the description in a file as :func:`densemble.load` does before it builds a network."""
    from densemble.storage.description import require_description
    from densemble.untrusted import decoded, parse_json, read_regular

    values = parse_json(decoded(read_regular(path)))
    require_description(values)
    for entry in values["members"]:
        member_spec(entry)
    require_part_values(values)


def read_settings(path: Path) -> None:
    make_config(read_config(path))


def read_set(path: Path) -> None:
    """Open the folder of a file as a data set, and read its first pair; two images lie beside the file."""
    if not (path.parent / "a.png").exists():
        for name in ("a.png", "b.png"):
            Image.new("RGB", (24, 16)).save(path.with_name(name))
    data = FolderData(path.parent, "segmentation")
    data.read_pair(data.train[0])


COCO = {
    "images": [{"id": 1, "file_name": "a.png", "height": 16, "width": 24}],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 5, 1, 5, 5.5]], "bbox": [1, 1, 4, 4]},
        {"id": 2, "image_id": 1, "category_id": 2, "segmentation": {"size": [16, 24], "counts": "abc"}, "iscrowd": 1},
    ],
}  # fmt: skip
READERS: dict[str, tuple[Callable[[Path], Any], list[str], str]] = {
    "settings": (read_settings, SETTINGS, "run.yaml"),
    "header": (read_header, [header_text()], "header.json"),
    "description": (read_description, [json.loads(header_text())["__metadata__"]["densemble"]], "description.json"),
    "coco": (read_set, [json.dumps(COCO)], "instances.json"),
    "pairs": (read_set, ["image,target,split\na.png,b.png,train\na.png;\"b.png\";val\n"], "pairs.csv"),
    "json": (read_json, [json.dumps(COCO)], "coco.json"),
    "lines": (read_json_lines, ['{"file_name": "a.png", "label": 1}\n{"file_name": "b.png", "x": 2.5}\n'], "m.jsonl"),
    "table": (read_table, ["image,target,split\na.png,b.png,train\n'c d.png';\"e\"\"f.png\";val\n"], "pairs.csv"),
    "points": (
        read_point_table, ["x,y,label\n1.5,2,0\n3,4e1,1\n", '{"points": [[1, 2], [3.5, 4]], "labels": [0, 1]}'], "p.csv"
    ),
    "point file": (read_point_table, ['{"points": [[1, 2], [3.5, 4]], "labels": [0, 1]}', "[[1, 2, 0]]"], "p.json"),
    "xml": (read_xml, ['<?xml version="1.0"?><annotations><image name="a" width="3"/></annotations>'], "a.xml"),
}  # fmt: skip
"""Name -> reader, sound texts, and the name of the file."""


@pytest.mark.parametrize("name", READERS)
def test_mutated_texts(name: str, share: float, tmp_path: Path, report: Callable[..., None]) -> None:
    read, texts, file = READERS[name]
    count = round((CASES if name in ("settings", "header", "coco", "pairs") else CASES / 5) * share)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        problems = list(problems_of(read, texts, tmp_path / file, count))
    report(cases=count, problems=problems)
