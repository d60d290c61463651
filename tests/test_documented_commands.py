"""Commands in README, docs and examples: their names, options and arguments exist."""

import re
import shlex
from contextlib import suppress
from pathlib import Path

import pytest
import typer

from densemble.cli import app

ROOT = Path(__file__).parents[1]
FILES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHELLS = ("", "bash", "sh", "shell", "console")
COMMENT = re.compile(r"\s{2,}# .*$|\s[>|].*$")
GROUP = typer.main.get_command(app)


def documented() -> list[tuple[str, str]]:
    """Each command with the file that it stands in; lines that end with a backslash are joined."""
    found: dict[tuple[str, str], None] = {}
    for file in FILES:
        for language, block in BLOCK.findall(file.read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                command = COMMENT.sub("", line.strip().removeprefix("$ "))
                if language in SHELLS and command.startswith("densemble ") and "..." not in command:
                    found[str(file.relative_to(ROOT)), command] = None
    return list(found)


def parse(arguments: list[str]) -> None:
    """Parse the arguments as the command line does, without running the command."""
    context = GROUP.make_context("densemble", list(arguments))
    command = GROUP
    while hasattr(command, "resolve_command") and (rest := [*context._protected_args, *context.args]):
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)


@pytest.mark.parametrize(("file", "command"), documented())
def test_a_documented_command_exists(file: str, command: str) -> None:
    program, *arguments = shlex.split(command)
    assert program == "densemble"
    if len(arguments) == 1 and arguments[0].startswith("-"):  # prints and exits, or changes the shell of the user
        context = GROUP.make_context("densemble", ["doctor"])
        assert any(arguments[0] in option.opts for option in GROUP.get_params(context))
        return
    with suppress(SystemExit):  # of help
        parse([re.sub(r"^hf://.*", "gaze.safetensors", argument) for argument in arguments])  # no download


def test_a_wrong_option_is_noticed() -> None:
    with pytest.raises(Exception, match="no option is named"):
        parse(["predict", "gaze.safetensors", "photos", "-o", "out", "--sace", "map"])
    assert len(documented()) > 50
