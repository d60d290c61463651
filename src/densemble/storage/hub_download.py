"""Files of the Hugging Face Hub: addresses ``hf://USER/NAME``, download into the hub's cache, and errors.

Only the requested file is downloaded. Nothing from a repository is executed.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from urllib.parse import unquote

from densemble.errors import ArtifactError, DensembleError, ResourceError, UsageError

ARTIFACT = "model.safetensors"
"""Name of the artifact in a repository, and in the folders that ``save_pretrained`` writes."""
FORM = "hf://USER/NAME[@REVISION][/FILE.safetensors]"
LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"
# pathlib turns the two slashes of an address into one.
_ADDRESS = re.compile(r"hf:/{1,2}(?P<repository>[^/@]+/[^/@]+)(?:@(?P<revision>[^/@]+))?(?:/(?P<file>.+))?")
_CACHED = re.compile(r"models--[^/]+--[^/]+")


def hub_cache() -> Path:
    """Return the folder of downloaded repositories."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


@dataclass(frozen=True)
class HubAddress:
    """An artifact in a repository of the hub.

    Attributes:
        repository: ``USER/NAME``.
        revision: branch, tag or commit; ``None`` is the branch ``main``.
        file: path in the repository.
    """

    repository: str
    revision: str | None = None
    file: str = ARTIFACT

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"hf://{self.repository}{revision}" + (f"/{self.file}" if self.file != ARTIFACT else "")


def hub_address(path: str | PurePath) -> HubAddress | None:
    """Parse ``hf://USER/NAME[@REVISION][/FILE.safetensors]``; ``None`` if the text does not begin with ``hf:/``.

    A slash in a revision is written ``%2F``.

    Raises:
        UsageError: the text begins with ``hf:/`` but is no such address.
    """
    text = path if isinstance(path, str) else path.as_posix()
    if not text.startswith("hf:/"):
        return None
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise UsageError(f"'{text}' is no address of the hub; write {FORM}")
    file = match["file"] or ARTIFACT
    if not file.endswith(".safetensors"):
        raise UsageError(f"'{text}': an artifact is named NAME.safetensors; write {FORM}")
    return HubAddress(match["repository"], unquote(match["revision"]) if match["revision"] else None, file)


def download(address: HubAddress, token: str | bool | None = None) -> Path:
    """Download an artifact, unless the cache holds its newest version, and return the path in the cache.

    Args:
        address: repository, revision and file.
        token: access token; default: ``HF_TOKEN`` or the token of ``hf auth login``.

    Raises:
        UsageError: a name that the hub does not allow.
        ArtifactError: there is no such repository, revision or file, or it is private.
        ResourceError: the hub cannot be reached, or refuses, and the cache does not hold the file.
    """
    from huggingface_hub import hf_hub_download

    with hub_errors(f"load '{address}'", address):
        return Path(hf_hub_download(address.repository, address.file, revision=address.revision, token=token))


@contextmanager
def hub_errors(action: str, address: HubAddress) -> Iterator[None]:
    """Turn errors of the hub's client into errors of densemble.

    Args:
        action: what failed, for the message: ``load 'hf://user/name'``.
        address: the repository.

    Raises:
        UsageError, ArtifactError, ResourceError: see :func:`download`.
    """
    try:
        yield
    except DensembleError:
        raise
    except Exception as error:  # the hub's client and its HTTP libraries raise a dozen unrelated classes
        raise _translated(error, action, address) from error


def _translated(error: Exception, action: str, address: HubAddress) -> DensembleError:
    from huggingface_hub import constants, errors

    repository, server = address.repository, constants.ENDPOINT
    first = next(iter(str(error).splitlines()), "") or type(error).__name__
    match error:
        case errors.HFValidationError():
            return UsageError(f"cannot {action}: '{repository}' is no name of a repository; write USER/NAME ({first})")
        case errors.GatedRepoError():
            return ArtifactError(
                f"cannot {action}: access to '{repository}' must be requested at {server}/{repository}; then {LOG_IN}"
            )
        case errors.RepositoryNotFoundError():
            return ArtifactError(
                f"cannot {action}: {server} has no repository '{repository}', or it is private; check the name, "
                f"and for a private repository {LOG_IN}"
            )
        case errors.RevisionNotFoundError():
            return ArtifactError(
                f"cannot {action}: '{repository}' has no revision '{address.revision or 'main'}'; give a branch, tag "
                "or commit of the repository"
            )
        case errors.LocalEntryNotFoundError():  # in some versions also an EntryNotFoundError
            return _unreachable(action, error)
        case errors.EntryNotFoundError():
            return ArtifactError(
                f"cannot {action}: '{repository}' has no file '{address.file}'; name the artifact as "
                f"hf://{repository}/FILE.safetensors, or write one there with `densemble push`"
            )
        case errors.LocalTokenNotFoundError():
            return ResourceError(f"cannot {action}: there is no access token; {LOG_IN}")
        case errors.HfHubHTTPError() if error.response is not None and error.response.status_code in (401, 403):
            return ResourceError(
                f"cannot {action}: {server} refuses ({first}); {LOG_IN} with a token that may read or write "
                f"'{repository}'"
            )
    return _unreachable(action, error)


def _unreachable(action: str, error: Exception) -> ResourceError:
    from huggingface_hub import constants

    cache = f"the cache '{constants.HF_HUB_CACHE}' (HF_HOME)"
    loading = action.startswith("load")
    if constants.HF_HUB_OFFLINE and not loading:
        return ResourceError(f"cannot {action}: HF_HUB_OFFLINE is set; unset it")
    if constants.HF_HUB_OFFLINE:
        return ResourceError(
            f"cannot {action}: HF_HUB_OFFLINE is set and {cache} does not hold the file; unset it and load once "
            "with a connection, or copy the cache from a machine that has the file"
        )
    cause = error.__cause__ or error
    reason = next(iter(str(cause).splitlines()), "") or type(cause).__name__
    if not loading:
        return ResourceError(
            f"cannot {action}: {constants.ENDPOINT} cannot be used ({type(cause).__name__}: {reason}); check the "
            "connection and try again"
        )
    return ResourceError(
        f"cannot {action}: {constants.ENDPOINT} cannot be used ({type(cause).__name__}: {reason}), and {cache} does "
        "not hold the file; try again, or copy the cache from a machine that has the file"
    )


def remedy(path: Path) -> str:
    """What to do about a damaged file: copy it again, or for a file in the hub's cache, download it again."""
    cached = next((parent for parent in path.parents if _CACHED.fullmatch(parent.name)), None)
    return "copy it again" if cached is None else f"remove the folder '{cached}' and load it again"
