"""The commands ``card`` and ``push``: the model card of an artifact, and its upload to the Hugging Face Hub."""

from pathlib import Path
from typing import Annotated

import typer

from densemble.commands.output import print_json, print_text, say
from densemble.commands.shared_options import ArtifactPath, Function, Json

Run = Annotated[
    Path | None,
    typer.Option("--run", help="Run folder of the artifact, for figures that the artifact does not contain."),
]
Licence = Annotated[
    str | None,
    typer.Option("--license", metavar="ID", help="Licence in the card's metadata, such as apache-2.0. Default: other."),
]


def card(
    artifact: ArtifactPath,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Markdown file to write, with metadata for the hub. Default: print the text."),
    ] = None,
    run: Run = None,
    repository: Annotated[
        str | None,
        typer.Option(metavar="USER/NAME", help="Repository in the example code. Default: the artifact file."),
    ] = None,
    licence: Licence = None,
    function: Function = None,
    json: Json = False,
) -> None:
    """Show what an artifact is: task, input and output, measured scores, members, and how to run it.

    With -o, write this as a model card for a repository.
    """
    from densemble.exporters.card import card_text, write_card
    from densemble.exporters.card_facts import card_facts
    from densemble.storage.artifact import artifact_file, load
    from densemble.storage.hub_download import HubAddress

    if out is not None:
        say(f"model card: {write_card(artifact, out, run, repository, licence, function or ())}")
    if out is None or json:
        file = artifact_file(artifact)
        facts = card_facts(file, load(file, functions=function or ()), run)
        if json:
            print_json({"artifact": str(artifact), **facts.describe()})
        else:
            print_text(card_text(facts, str(HubAddress(repository) if repository else artifact)))


def push(
    artifact: ArtifactPath,
    repository: Annotated[str, typer.Argument(metavar="USER/NAME", help="Repository; created if it does not exist.")],
    private: Annotated[bool, typer.Option("--private", help="Create a private repository.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch; created if it does not exist. Default: main.")] = None,
    run: Run = None,
    licence: Licence = None,
    function: Function = None,
) -> None:
    """Upload an artifact with its model card to the Hugging Face Hub.

    The access token is read from HF_TOKEN, or from the login of `hf auth login`.
    """
    from densemble.commands.argument_order import require_artifact_first
    from densemble.exporters.hub import push_to_hub

    require_artifact_first("push", artifact, [repository])
    address = push_to_hub(
        artifact, repository, private=private or None, revision=revision, run=run, licence=licence,
        functions=function or (),
    )  # fmt: skip
    say(f"pushed; load it with `densemble predict {address} IMAGES -o OUT`")
