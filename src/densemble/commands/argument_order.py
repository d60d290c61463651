"""Arguments in the wrong order: a data folder where a command expects an artifact, and the reverse."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from densemble.errors import UsageError

ADDRESS, SUFFIX = "hf://", ".safetensors"


def looks_like_artifact(argument: str | Path) -> bool:
    """Return whether an argument is an artifact by its name, or a run folder or a folder that holds an artifact."""
    from densemble.storage.hub_download import ARTIFACT
    from densemble.storage.runs import RunFolder

    run = RunFolder(Path(argument))
    files = (run.state, run.artifact, Path(argument) / ARTIFACT)
    return str(argument).startswith(ADDRESS) or str(argument).endswith(SUFFIX) or any(file.is_file() for file in files)


def require_artifact_first(command: str, artifact: Path, others: Sequence[str | Path]) -> None:
    """Check that the artifact is the first argument of a command.

    Raises:
        UsageError: another argument is an artifact and the first one is not; the message contains the right command.
    """
    if looks_like_artifact(artifact):
        return
    swapped = next((str(other) for other in others if looks_like_artifact(other)), None)
    if swapped is None:
        return
    rest = [str(artifact), *(str(other) for other in others if str(other) != swapped)]
    raise UsageError(
        f"the arguments are in the wrong order: '{swapped}' is the artifact and comes first; write "
        f"`{shlex.join(['densemble', *command.split(), swapped, *rest])} ...`"
    )


def require_data(command: str, data: Path) -> None:
    """Check that the data argument of a command is not an artifact or a run folder.

    Raises:
        UsageError: it is.
    """
    if looks_like_artifact(data):
        kind = "a run folder" if data.is_dir() else "an artifact"
        raise UsageError(f"'{data}' is {kind}; `densemble {command}` takes a data folder there")


def require_run(command: str, run: Path) -> None:
    """Check that the run argument of a command is not an artifact.

    Raises:
        UsageError: it is.
    """
    if run.is_file() and str(run).endswith(SUFFIX):
        raise UsageError(
            f"'{run}' is an artifact; `densemble {command}` takes the run folder of a training, such as "
            f"'{run.parent if (run.parent / 'run.yaml').is_file() else 'runs/NAME'}'"
        )
