"""Artifacts in repositories of the Hugging Face Hub, and in folders of the same content.

A repository holds ``model.safetensors`` (the artifact, unchanged), ``config.json`` (a short description) and
``README.md`` (the model card).
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard, ModelHubMixin

from densemble.ensemble.ensemble import Ensemble
from densemble.errors import UsageError
from densemble.exporters.card import LIBRARY, CardOptions, make_card
from densemble.exporters.card_facts import CardFacts, card_facts
from densemble.nets.dense import DenseModel
from densemble.storage.artifact import artifact_file, load, save
from densemble.storage.hub_download import ARTIFACT, HubAddress, download, hub_address, hub_errors
from densemble.storage.writing import atomic_files, atomic_path, require_writable, scratch_folder, write_text


class HubModel(ModelHubMixin):
    """An artifact with its card, as huggingface-hub saves and uploads it.

    Args:
        artifact: file of the artifact.
        card: its model card.
        config: content of ``config.json``, which the mixin writes.
    """

    def __init__(self, artifact: Path, card: ModelCard, config: dict[str, Any]) -> None:
        self._artifact, self._card = artifact, card

    def _save_pretrained(self, save_directory: Path) -> None:
        with atomic_path(save_directory / ARTIFACT) as temporary:
            shutil.copyfile(self._artifact, temporary)
        # The mixin keeps a card that exists and would otherwise write one of its template.
        write_text(save_directory / "README.md", f"{self._card}\n")


def save_pretrained(
    ensemble: Ensemble | DenseModel | str | Path,
    folder: str | Path,
    *,
    run: str | Path | None = None,
    licence: str | None = None,
    functions: Sequence[str] = (),
) -> Path:
    """Write an ensemble with its model card into a folder, as :func:`push_to_hub` uploads it.

    Args:
        ensemble: ensemble, or artifact.
        folder: folder; files of the same names are replaced.
        run: run folder that made the artifact; needed only for figures that the artifact does not record.
        licence: identifier of a licence for the card's metadata, such as ``apache-2.0``; default: ``other``.
        functions: see :func:`densemble.storage.artifact.load`.

    Raises:
        UsageError: a member was made from a module, or the last assembly of ``run`` is another ensemble.
        ArtifactError: the artifact is damaged.
        ResourceError: the folder cannot be written.
    """
    folder = require_writable(Path(folder))
    options = CardOptions(str(folder / ARTIFACT), licence)
    with _hub_model(ensemble, run, options, functions) as model, atomic_files(folder / ARTIFACT) as artifact:
        model.save_pretrained(artifact.parent)
    return folder


def push_to_hub(
    ensemble: Ensemble | DenseModel | str | Path,
    repository: str,
    *,
    token: str | None = None,
    private: bool | None = None,
    revision: str | None = None,
    run: str | Path | None = None,
    licence: str | None = None,
    functions: Sequence[str] = (),
) -> str:
    """Upload an ensemble with its model card to the Hugging Face Hub; the repository is created if it does not exist.

    Args:
        ensemble: ensemble, or artifact.
        repository: ``USER/NAME``.
        token: access token; default: ``HF_TOKEN`` or the token of ``hf auth login``.
        private: whether a new repository is private; default: as the account is set.
        revision: branch, created if it does not exist; default ``main``.
        run, licence, functions: see :func:`save_pretrained`.

    Returns:
        Address of the ensemble for ``load``: ``hf://USER/NAME``.

    Raises:
        UsageError: the name is no ``USER/NAME``, or see :func:`save_pretrained`.
        ArtifactError: the artifact is damaged, or there is no such account.
        ResourceError: the hub cannot be reached, or refuses the token.
    """
    address = HubAddress(repository.removeprefix("hf://"), revision)
    if _address(address.repository) != HubAddress(address.repository):
        raise UsageError(f"'{repository}' is no name of a repository; write USER/NAME, and the branch as revision")
    options = CardOptions(str(address), licence)
    with _hub_model(ensemble, run, options, functions) as model, hub_errors(f"push to '{address}'", address):
        if revision is not None:
            api = HfApi(token=token)
            api.create_repo(address.repository, private=private, exist_ok=True)
            api.create_branch(address.repository, branch=revision, exist_ok=True)
        model.push_to_hub(
            address.repository, token=token, private=private, branch=revision, commit_message="Upload an ensemble"
        )
    return str(address)


def _address(name: str) -> HubAddress | None:
    """Parse ``USER/NAME[@REVISION]``; ``None`` if the text has another form."""
    with suppress(UsageError):
        return hub_address(f"hf://{name}")
    return None


@contextmanager
def _hub_model(
    ensemble: Ensemble | DenseModel | str | Path, run: str | Path | None, options: CardOptions, functions: Sequence[str]
) -> Iterator[HubModel]:
    """Yield the artifact with its card. A damaged artifact, or one that cannot be saved, fails before any upload."""
    with scratch_folder() as scratch:
        if isinstance(ensemble, str | Path):
            file = artifact_file(ensemble)
            loaded: Ensemble | DenseModel = load(file, "cpu", functions)
        else:
            file, loaded = save(ensemble, scratch / ARTIFACT), ensemble
        whole = Ensemble([loaded]) if isinstance(loaded, DenseModel) else loaded
        facts = card_facts(file, whole, run)
        yield HubModel(file, make_card(facts, options), _config(facts))


def _config(facts: CardFacts) -> dict[str, Any]:
    task = facts.ensemble.task
    return {
        "library_name": LIBRARY, "artifact": ARTIFACT, "task": task.name, "classes": list(task.classes),
        "members": list(facts.ensemble.members), "versions": dict(facts.versions),
    }  # fmt: skip


def from_pretrained(
    name: str | Path,
    *,
    revision: str | None = None,
    token: str | None = None,
    device: str = "auto",
    functions: Sequence[str] = (),
    min_members: int | None = None,
) -> Ensemble:
    """Load an ensemble from a repository of the Hugging Face Hub, or from a folder.

    Args:
        name: ``USER/NAME``, or a folder that :func:`save_pretrained` wrote; an existing folder has precedence.
        revision: branch, tag or commit; default ``main``.
        token: access token; default: ``HF_TOKEN`` or the token of ``hf auth login``.
        device, functions, min_members: see :func:`densemble.storage.artifact.load`.

    Raises:
        UsageError: the name is no ``USER/NAME`` and no folder.
        ArtifactError: there is no such repository, revision or artifact, it is private, or it is damaged.
        ResourceError: the hub cannot be reached and the cache does not hold the artifact.
    """
    path = Path(name)
    if not path.is_dir():
        address = _address(str(name).removeprefix("hf://"))
        if address is None:
            raise UsageError(f"'{name}' is neither a folder nor a name of a repository; write USER/NAME")
        path = download(replace(address, revision=revision or address.revision), token)
    return load(path, device, functions, min_members)
