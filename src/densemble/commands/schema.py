"""The command ``schema``: JSON schema of run.yaml for editors."""

from pathlib import Path
from typing import Annotated

import typer

from densemble.commands.output import print_json, say


def schema(
    out: Annotated[Path | None, typer.Option("-o", "--out", help="File to write. Default: stdout.")] = None,
) -> None:
    """Print the JSON schema of run.yaml. Editors use it to complete and check keys.

    With `-o run.schema.json`, write `# yaml-language-server: $schema=run.schema.json` as the first line of run.yaml.
    """
    from densemble.run_schema import run_schema
    from densemble.storage.writing import write_json

    if out is None:
        print_json(run_schema())
    else:
        write_json(out, run_schema())
        say(f"schema: {out}")
