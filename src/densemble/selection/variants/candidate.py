"""Candidates of a run: its trained members and their variants."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from densemble.config import RunConfig
from densemble.data.folder import FolderData
from densemble.ensemble.member_views import ViewedMember
from densemble.errors import ArtifactError
from densemble.evaluation.scores import Scores
from densemble.nets.dense import DenseModel, DenseSpec
from densemble.nets.local_weights import read_state
from densemble.storage.restore import restore
from densemble.storage.run_records import VariantRecord, member_state, optional_record, read_member, spec_of
from densemble.storage.runs import MemberFolder, RunFolder, VariantFolder
from densemble.storage.writing import write_json
from densemble.tasks import Task

AGAIN = "delete its folder and train it again with `densemble train ... --resume`"


@dataclass(frozen=True)
class Source:
    """A trained run with its data, the source of variants and ensembles.

    Attributes:
        run: run folder.
        config: configuration of the run.
        task: task of the run.
        data: images and targets.
        baselines: held-out scores of predictions that need no training, by name.
    """

    run: RunFolder
    config: RunConfig
    task: Task
    data: FolderData
    baselines: Mapping[str, Scores]


@dataclass(frozen=True)
class Candidate:
    """A trained member, or a variant of one that needs no further training.

    Attributes:
        name: name of the member, or label of the variant.
        kind: kind of the candidate.
        of: name of the member with the same network specification; for a member, its name.
        spec: specification of the network.
        weights: weight file of the network.
        view: view of the images; ``None``: unchanged images.
        made_from: names of the members and snapshots whose weights, or mean of weights, it uses.
        folder: folder with its record and its predictions of the validation images.
        val: scores on the validation images.
        record: ``member.json`` of the member ``of``.
    """

    name: str
    kind: Literal["member", "view", "snapshot", "soup"]
    of: str
    spec: DenseSpec
    weights: Path
    view: str | None
    made_from: tuple[str, ...]
    folder: MemberFolder | VariantFolder
    val: Scores
    record: dict[str, Any]

    @property
    def predictions(self) -> Path:
        """File with the maps of the validation images, ``(N, K, h, w)``."""
        return self.folder.predictions

    def network(self) -> DenseModel:
        """Load the network with its weights, in eval mode.

        Raises:
            ArtifactError: the weights are missing or do not fit.
            WeightsError: the weights are damaged.
        """
        if not self.weights.is_file():
            raise ArtifactError(f"member '{self.name}': no weights at '{self.weights}'; {AGAIN}")
        return restore(self.spec, read_state(self.weights), f"member '{self.name}'")

    def member(self, network: DenseModel) -> DenseModel | ViewedMember:
        """Return the network with the view of this candidate."""
        return network if self.view is None else ViewedMember(network, self.view)


def find_candidates(run: RunFolder, config: RunConfig) -> list[Candidate]:
    """Return the trained members in their order, followed by their variants; see :func:`find_members`."""
    members = find_members(run, config)
    return [*members.values(), *find_variants(run, members).values()]


def find_members(run: RunFolder, config: RunConfig) -> dict[str, Candidate]:
    """Return the members whose training is finished, by name, in their order.

    A member whose record is damaged is left out with a warning, see :func:`damaged_records`.
    """
    members = {}
    for number, name in enumerate(config.member_names()):
        folder = run.member(number, name)
        record = read_member(folder) if member_state(folder) == "done" else None
        if record is not None:
            members[name] = Candidate(
                name, "member", name, spec_of(record), folder.weights, None, (name,), folder, record["val"], record
            )
    return members


def damaged_records(run: RunFolder, config: RunConfig) -> dict[str, str]:
    """Return the members that are left out because their records are damaged, with the reasons."""
    reasons = {}
    for number, name in enumerate(config.member_names()):
        try:
            read_member(run.member(number, name))
        except ArtifactError as error:
            reasons[name] = str(error)
    return reasons


def find_variants(run: RunFolder, members: Mapping[str, Candidate]) -> dict[str, Candidate]:
    """Return the variants of these members by label; one whose record is damaged is left out with a warning."""
    variants = {}
    for path in sorted(run.variants.glob("*/variant.json")):
        label = path.parent.name
        consequence = f"variant '{label}' is left out; delete its folder and make it again"
        values = optional_record(path, VariantRecord, consequence)
        member = members.get(values["of"]) if values is not None else None
        if values is not None and member is not None:
            variants[label] = Candidate(
                label, values["kind"], member.name, member.spec, run.path / values["weights"], values["view"],
                tuple(values["from"]), run.variant(label), values["val"], member.record,
            )  # fmt: skip
    return variants


def write_variant(run: RunFolder, variant: Candidate) -> None:
    """Write ``RUN/variants/LABEL/variant.json``."""
    values = {
        "name": variant.name, "kind": variant.kind, "of": variant.of, "view": variant.view,
        "weights": variant.weights.relative_to(run.path).as_posix(), "from": list(variant.made_from),
        "val": variant.val,
    }  # fmt: skip
    write_json(variant.folder.record, values)
