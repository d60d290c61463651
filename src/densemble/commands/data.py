"""data check, data show: what a data folder is like, before hours are spent on it."""

from pathlib import Path
from typing import Annotated

import typer

from densemble.commands.output import print_json, print_table, say
from densemble.commands.settings import DataPath, Set, read_settings

app = typer.Typer(no_args_is_help=True, help="Look at a data folder.")


@app.command()
def check(
    data: DataPath,
    task: Annotated[str, typer.Option(help="What the maps mean.")] = "saliency",
    setting: Set = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Read everything once and list all problems with their remedies (exit 3 if there are any)."""
    from densemble.config import make_config
    from densemble.data.folder import FolderData

    config = make_config(read_settings(None, task, None, setting))
    folder = FolderData(data, task, **{**config.data.model_dump(), "skip_unpaired": True})
    facts = folder.check()
    if json:
        print_json(facts)
    else:
        rows = []
        for name, split in facts["splits"].items():
            pairs, fixations, sizes = (split.pop(key) for key in ("pairs", "with_fixations", "sizes"))
            rest = "; ".join(f"{key} {value}" for key, value in split.items())
            rows.append([name, pairs, fixations, _short(sizes), rest])
        print_table(["split", "pairs", "fixations", "sizes", "facts"], rows)
        for problem in facts["problems"]:
            typer.echo(f"{problem['kind']}: {problem['message']}")
        typer.echo("ok" if facts["ok"] else f"{len(facts['problems'])} problems")
    if not facts["ok"]:
        raise typer.Exit(3)


def _short(sizes: dict[str, int]) -> str:
    return ", ".join(f"{size} ({count})" for size, count in sizes.items())


@app.command()
def show(
    data: DataPath,
    out: Annotated[Path, typer.Option("-o", "--out", help="PNG to write.")] = Path("preview.png"),
    task: Annotated[str, typer.Option(help="What the maps mean.")] = "saliency",
    count: Annotated[int, typer.Option(min=1, max=64, help="How many samples.")] = 8,
    setting: Set = None,
) -> None:
    """Draw samples with their maps into one picture."""
    from densemble.config import make_config
    from densemble.data.folder import FolderData
    from densemble.report.preview import draw_preview

    config = make_config(read_settings(None, task, None, setting))
    folder = FolderData(data, task, **config.data.model_dump())
    draw_preview(folder, count, out)
    say(f"wrote {out}")
