"""Record train, assemble and predict in a terminal of 80 x 24 characters, and write docs/assets/terminal-session.txt.

Needs tmux, a data set, and the weights of the members in $DENSEMBLE_WEIGHTS_DIR or in torch's cache. The screens are
copied from the terminal without changes; three of them are also written into docs/how-to/command-line.md.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "assets" / "terminal-session.txt"
PAGE = ROOT / "docs" / "how-to" / "command-line.md"
ON_PAGE = (r"training 2/2", r"assembling 4/5 .* left", r"predicting")
"""Patterns of the screens on the page."""
START, END = "<!-- illustration -->", "<!-- /illustration -->"
COLUMNS, ROWS = 80, 24
POLL = 0.2
SUBSET = {"train": 60, "val": 24}
"""First images of each split that are used, so that the recording takes minutes."""
MEMBERS = "timm/tf_efficientnet_lite0,timm/tf_efficientnet_lite1"


@dataclass
class Step:
    """A command, and the patterns of the screens to keep: the first screen that matches each of them, in this order."""

    command: str
    screens: list[str]
    kept: list[tuple[float, str]] = field(default_factory=list)


STEPS = (
    Step(
        f"densemble train osie --task saliency --members {MEMBERS} --set input_size=96x128 --set training.epochs=3 "
        "--time {time} -o runs/gaze",
        [
            r"(checking|reading) [1-9]",
            r"training 1/2 .* epoch [23]/.*left",
            r"training 2/2 .* epoch [123]/.*left",
            r"assembling [34]/5 ",
        ],
    ),
    Step(
        "densemble assemble runs/gaze -o gaze.safetensors --select all",
        [r"assembling 2/5 .*left", r"assembling 4/5 .*left"],
    ),
    Step("densemble predict gaze.safetensors osie/val/images -o maps", [r"predicting \d+/\d+ .*left"]),
)


class Terminal:
    """A terminal of tmux with a shell in a folder."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.server = f"densemble-{uuid.uuid4().hex[:8]}"
        size = ["-x", str(COLUMNS), "-y", str(ROWS)]
        self._run(
            "new-session", "-d", *size, "-c", str(folder), "bash --norc --noprofile", env={**os.environ, **environment}
        )
        self.type("PS1='$ '; unset HISTFILE; clear")
        time.sleep(1)

    def type(self, line: str) -> None:
        self._run("send-keys", "-l", line)
        self._run("send-keys", "Enter")

    def screen(self, history: bool = False) -> str:
        lines = self._run("capture-pane", "-p", *(["-S", "-"] if history else [])).splitlines()
        return "\n".join(line.rstrip() for line in lines).rstrip("\n")

    def clear(self) -> None:
        self.type("clear")
        time.sleep(0.5)
        self._run("clear-history")

    def close(self) -> None:
        self._run("kill-server")

    def _run(self, *words: str, env: dict[str, str] | None = None) -> str:
        command = ["tmux", "-L", self.server, "-f", "/dev/null", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout


def record(terminal: Terminal, step: Step, limit: float) -> str:
    """Run a command; return everything that it left in the terminal."""
    terminal.clear()
    started, waiting = time.monotonic(), list(step.screens)
    terminal.type(step.command)
    while not re.search(r"^\$$", terminal.screen(), re.MULTILINE):
        seconds, screen = time.monotonic() - started, terminal.screen()
        if seconds > limit:
            raise SystemExit(f"no end after {limit:.0f} s:\n{screen}")
        if waiting and re.search(waiting[0], screen):
            step.kept.append((seconds, screen))
            waiting.pop(0)
        elif any(re.search(pattern, screen) for pattern in waiting[1:]):
            print(f"missed: {waiting.pop(0)}", file=sys.stderr)
        time.sleep(POLL)
    return terminal.screen(history=True)


def link_subset(data: Path, folder: Path) -> None:
    """Make a data folder of links to the first pairs of each split."""
    for split, count in SUBSET.items():
        for kind in ("images", "targets"):
            (folder / split / kind).mkdir(parents=True)
            for file in sorted((data / split / kind).iterdir())[:count]:
                (folder / split / kind / file.name).symlink_to(file)


def write_page() -> None:
    """Write the recorded screens that match ``ON_PAGE`` into the page."""
    screens = re.findall(
        r"^==== after .*?\n(.*?)(?=\n\n====|\Z)", OUT.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    chosen = [next(screen for screen in screens if re.search(pattern, screen)) for pattern in ON_PAGE]
    blocks = "\n\n".join(f"```text\n{screen}\n```" for screen in chosen)
    caption = (
        f"Screens of one session, as an illustration: {SUBSET['train']} training images, on a busy machine. The "
        "finished part of a bar has another colour."
    )
    text = f"{START}\n{caption}\n\n{blocks}\n{END}"
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(re.sub(f"{START}.*?{END}", lambda _: text, page, flags=re.DOTALL), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "saliency-osie")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--time", default="8m", help="time limit of the training")
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds after which a command counts as stuck")
    parser.add_argument("--page-only", action="store_true", help="write the page from the last recording")
    arguments = parser.parse_args()
    if not arguments.page_only:
        write_recording(arguments)
    write_page()


def write_recording(arguments: argparse.Namespace) -> None:
    """Record the commands and write the screens into ``OUT``."""
    parts: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        link_subset(arguments.data.resolve(), folder / "osie")
        environment = {}
        if weights := os.environ.get("DENSEMBLE_WEIGHTS_DIR"):
            (folder / "weights").symlink_to(Path(weights).resolve())
            environment["DENSEMBLE_WEIGHTS_DIR"] = "weights"
        (folder / "bin").mkdir()
        code = "import sys; sys.argv[0] = 'densemble'; from densemble.cli import main; main()"
        program = folder / "bin" / "densemble"
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(arguments.python)} -c "{code}" "$@"\n', encoding="utf-8")
        program.chmod(0o755)
        path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
        terminal = Terminal(folder, {**environment, "PATH": path, "PYTHONPATH": str(ROOT / "src")})
        try:
            for step in STEPS:
                step.command = step.command.format(time=arguments.time)
                whole = record(terminal, step, arguments.limit)
                for seconds, screen in step.kept:
                    parts.append(f"==== after {seconds:.0f} seconds\n{screen}")
                parts.append(f"==== at the end, with everything that scrolled away\n{whole}")
        finally:
            terminal.close()
    longest = max(len(line) for part in parts for line in part.splitlines())
    if longest > COLUMNS:
        raise SystemExit(f"a line has {longest} columns")
    OUT.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    print(f"wrote {OUT.relative_to(ROOT)}; the longest line has {longest} columns")


if __name__ == "__main__":
    main()
