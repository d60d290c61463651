"""Follow the get-started pages word for word, and compare their output with what the commands print.

Each page is followed in one folder: every ``python title="FILE"`` block is written to FILE, and every line
``$ COMMAND`` of a ``console`` block is executed. The output goes to benchmarks/results/get_started.json, from which
``figures.py --write`` fills the pages. ``densemble`` and ``python`` must be on PATH.

    python benchmarks/follow_pages.py FOLDER --data osie=DIR --data camvid=DIR --data redkitchen=DIR [PAGE ...]

The data sets are saliency-osie, segmentation-camvid and depth-redkitchen. Without network access, set
DENSEMBLE_WEIGHTS_DIR to a folder with the pretrained weights.
"""

import argparse
import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "get-started"
RESULT = Path(__file__).parent / "results" / "get_started.json"
_FENCE = re.compile(r"^```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?$")

_PROGRESS = re.compile(r"\bepoch \d+/|^[a-z ,]+ \d+/\d+|\r")
_WEIGHTS = os.environ.get("DENSEMBLE_WEIGHTS_DIR", "")


@dataclass
class Block:
    """A code block of a page: the numbers of its first and last line of content, as in a slice."""

    language: str
    title: str
    start: int
    stop: int


def blocks(lines: list[str]) -> Iterator[Block]:
    """The code blocks of a page in their order."""
    opened: Block | None = None
    for number, line in enumerate(lines):
        fence = _FENCE.match(line)
        if fence is None:
            continue
        if opened is None:
            opened = Block(fence["language"], fence["title"] or "", number + 1, number + 1)
        else:
            opened.stop = number
            yield opened
            opened = None


def page(name: str) -> str:
    """Text of a get-started page with the recorded output below each command; unchanged if nothing is recorded."""
    pages = json.loads(RESULT.read_text(encoding="utf-8"))["pages"] if RESULT.is_file() else {}
    recorded = {entry["command"]: entry["output"] for entry in pages.get(name, [])}
    lines = (FOLDER / f"{name}.md").read_text(encoding="utf-8").splitlines()
    filled, copied = [], 0
    for block in blocks(lines):
        if block.language == "console":
            filled += lines[copied : block.start]
            for command in commands(lines, block):
                filled += [f"$ {command}", *recorded.get(command, "").splitlines()]
            copied = block.stop
    return "\n".join([*filled, *lines[copied:]]) + "\n"


def saliency() -> str:
    """Text of docs/get-started/saliency.md."""
    return page("saliency")


def segmentation() -> str:
    """Text of docs/get-started/segmentation.md."""
    return page("segmentation")


def depth() -> str:
    """Text of docs/get-started/depth.md."""
    return page("depth")


PAGE = {make.__name__: make for make in (saliency, segmentation, depth)}
"""Function that returns the text of each page."""


def commands(lines: list[str], block: Block) -> list[str]:
    """The commands of a console block, without their output."""
    return [line.removeprefix("$ ") for line in lines[block.start : block.stop] if line.startswith("$ ")]


def follow(name: str, folder: Path) -> Iterator[dict[str, str]]:
    """Execute the commands of a page and yield each with its output; stop at the first that fails."""
    lines = (FOLDER / f"{name}.md").read_text(encoding="utf-8").splitlines()
    for block in blocks(lines):
        if block.language == "python" and block.title:
            (folder / block.title).write_text("\n".join(lines[block.start : block.stop]) + "\n", encoding="utf-8")
        if block.language != "console":
            continue
        for command in commands(lines, block):
            print(f"$ {command}", flush=True)
            result = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=False)
            print(result.stdout + result.stderr, flush=True)
            if result.returncode:
                raise SystemExit(f"'{command}' of {name}.md ended with exit code {result.returncode}")
            output = result.stdout.rstrip() or _final(result.stderr)
            yield {"command": command, "output": output.replace(_WEIGHTS, "weights") if _WEIGHTS else output}


def _final(messages: str) -> str:
    """Messages of a command that prints no result, without the lines of epochs and of the progress."""
    return "\n".join(line for line in messages.splitlines() if not _PROGRESS.search(line)).strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="empty folder in which the pages are followed")
    parser.add_argument("--data", action="append", default=[], metavar="NAME=DIR", help="data set, linked as NAME")
    parser.add_argument("pages", nargs="*", default=list(PAGE), help=f"default: {' '.join(PAGE)}")
    arguments = parser.parse_intermixed_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name, _, path in (entry.partition("=") for entry in arguments.data):
        link = arguments.folder / name
        link.unlink(missing_ok=True)
        link.symlink_to(Path(path).resolve(), target_is_directory=True)
    recorded = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {"pages": {}}
    for name in arguments.pages:
        done = recorded["pages"][name] = []
        for entry in follow(name, arguments.folder):
            done.append(entry)
            RESULT.write_text(json.dumps(recorded, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"wrote {RESULT}")


if __name__ == "__main__":
    main()
