"""Model card: a README for a repository of models, generated from the facts of an artifact.

Every number in the card is stored in the artifact, or in the run that made it. Facts that are not known are named as
not recorded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from densemble.errors import UsageError
from densemble.exporters import card_sections as sections
from densemble.exporters.card_facts import CardFacts, card_facts
from densemble.storage.artifact import artifact_file, load
from densemble.storage.hub_download import HubAddress
from densemble.storage.writing import require_writable, write_text

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCard

LIBRARY = "densemble"
OTHER_LICENCE: dict[str, Any] = {
    "license": "other",
    "license_name": "terms-of-the-pretrained-weights",
    "license_link": "README.md",
}
"""Metadata of a card without a licence of the user's choice: the section on licences has the terms."""


@dataclass(frozen=True)
class CardOptions:
    """Content of a card that the artifact does not hold.

    Attributes:
        address: where the artifact can be loaded from: a file name, or ``hf://USER/NAME``.
        licence: identifier of a licence for the metadata, such as ``apache-2.0``; default: ``other``.
        datasets: names of data sets on the hub that the ensemble was trained on.
    """

    address: str
    licence: str | None = None
    datasets: tuple[str, ...] = ()


def write_card(
    artifact: str | Path,
    path: str | Path,
    run: str | Path | None = None,
    repository: str | None = None,
    licence: str | None = None,
    functions: Sequence[str] = (),
) -> Path:
    """Write a model card for an artifact.

    Args:
        artifact: artifact, run folder, or ``hf://`` address.
        path: Markdown file.
        run: run folder that made the artifact, see :func:`card_facts`.
        repository: ``USER/NAME`` of the hub, for the example code; default: the example loads the file.
        licence: identifier of a licence for the metadata; default: ``other``.
        functions: see :func:`densemble.storage.artifact.load`.

    Raises:
        ArtifactError: the artifact or the run is damaged.
        UsageError: the last assembly of ``run`` is another ensemble, or the path is a folder or another text.
        ResourceError: the file cannot be written.
    """
    path, file = Path(path), artifact_file(artifact)
    if path.is_dir():
        raise UsageError(f"'{path}' is a folder; name the file, for example '{path / 'README.md'}'")
    if path.exists() and f"library_name: {LIBRARY}" not in path.read_text(encoding="utf-8", errors="replace"):
        raise UsageError(f"'{path}' exists and is not a model card of densemble; name another file (-o), or remove it")
    facts = card_facts(file, load(file, "cpu", functions), run)
    options = CardOptions(str(HubAddress(repository)) if repository else file.name, licence)
    require_writable(path.parent)
    write_text(path, f"{make_card(facts, options)}\n")
    return path


def make_card(facts: CardFacts, options: CardOptions) -> "ModelCard":
    """Make the model card of an artifact: metadata for the hub, and text."""
    from huggingface_hub import ModelCard, ModelCardData

    task = facts.ensemble.task
    results = _results(facts)
    terms: dict[str, Any] = {"license": options.licence} if options.licence else OTHER_LICENCE
    data = ModelCardData(
        library_name=LIBRARY, pipeline_tag=task.pipeline_tag, tags=[LIBRARY, "ensemble", task.name],
        datasets=list(options.datasets) or None, metrics=[facts.metric] if results else None,
        model_name=_title(facts) if results else None, eval_results=results or None,
        **terms,
    )  # fmt: skip
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{card_text(facts, options.address)}")


def card_text(facts: CardFacts, address: str) -> str:
    """Return the text of a model card in Markdown, without metadata.

    Args:
        facts: facts of the artifact.
        address: where the artifact can be loaded from, see :class:`CardOptions`.
    """
    parts = [f"# {_title(facts)}", sections.summary(facts, address)]
    for heading, section in sections.SECTIONS.items():
        if text := section(facts, address):
            parts.append(f"## {heading}\n{text}")
    return "\n\n".join(parts)


def _title(facts: CardFacts) -> str:
    members = sections.counted(len(facts.ensemble.members), "member")
    return f"{facts.ensemble.task.name.capitalize()} ensemble of {members}"


def _results(facts: CardFacts) -> "list[EvalResult]":
    """Scores for the metadata: cross-fitted scores if they are known, else those on the images of the fit."""
    from huggingface_hub import EvalResult

    scores: dict[str, Any] = dict(facts.cross_fitted.get("scores") or facts.scores)
    how = "cross-fitted" if facts.cross_fitted else "fitted on these images"
    name = str(facts.data.get("name", "data not recorded"))
    return [
        EvalResult(
            task_type=facts.ensemble.task.pipeline_tag, dataset_type=name, dataset_name=name, dataset_split="val",
            metric_type=metric, metric_name=f"{metric}, {how}", metric_value=value,
        )
        for metric, value in scores.items()
        if isinstance(value, int | float)
    ]  # fmt: skip
