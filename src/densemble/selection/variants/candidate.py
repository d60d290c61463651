"""Candidates of a run: its trained members, and the variants that were made of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from densemble.config import RunConfig
from densemble.ensemble.member_views import Viewed
from densemble.errors import ArtifactError
from densemble.evaluation.scores import Scores
from densemble.nets.dense import DenseModel, DenseSpec
from densemble.nets.local_weights import read_state
from densemble.storage.artifact import restore
from densemble.storage.runs import MemberFolder, RunFolder, VariantFolder, read_json, write_json

AGAIN = "delete its folder and train it again with `densemble train ... --resume`"


@dataclass(frozen=True)
class Candidate:
    """A member whose training is finished, or a variant of one: a network made without further training.

    Attributes:
        name: of the member, or label of the variant.
        kind: what it is.
        of: name of the member whose specification its network has; of a member its own.
        spec: of its network.
        weights: file of its network's weights.
        view: through which it looks at images; ``None``: as they are.
        made_from: names of the members and snapshots whose weights it has, or has the mean of.
        folder: holds its record and its predictions of the validation images.
        val: its scores on the validation images.
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
        """File of its maps of the validation images, ``(N, K, h, w)``."""
        return self.folder.predictions

    def network(self) -> DenseModel:
        """The network with its weights, in eval mode.

        Raises:
            ArtifactError: the weights are missing or do not fit.
            WeightsError: the weights are damaged.
        """
        if not self.weights.is_file():
            raise ArtifactError(f"member '{self.name}': no weights at '{self.weights}'; {AGAIN}")
        return restore(self.spec, read_state(self.weights), f"member '{self.name}'")

    def member(self, network: DenseModel) -> DenseModel | Viewed:
        """The network as it looks at images."""
        return network if self.view is None else Viewed(network, self.view)


def find_candidates(run: RunFolder, config: RunConfig) -> list[Candidate]:
    """Finished members in their order, then their finished variants.

    Raises:
        ArtifactError: a record that is damaged.
    """
    members = find_members(run, config)
    return [*members.values(), *find_variants(run, members).values()]


def find_members(run: RunFolder, config: RunConfig) -> dict[str, Candidate]:
    """Members whose training is finished, by name, in their order.

    Raises:
        ArtifactError: a record that is damaged.
    """
    members = {}
    for number, name in enumerate(config.member_names()):
        folder = run.member(number, name)
        try:
            record = read_json(folder.record) if folder.record.is_file() else {}
            if record.get("state") == "done":
                members[name] = _member(name, folder, record)
        except (ArtifactError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(
                f"the record '{folder.record}' is damaged ({error!r}); delete that folder, and it can be trained again "
                "(`densemble train ... --resume`)"
            ) from error
    return members


def _member(name: str, folder: MemberFolder, record: dict[str, Any]) -> Candidate:
    spec = DenseSpec.from_dict(record["spec"])
    if missing := {"val", "parameters", "epochs", "seconds"} - record.keys():
        raise KeyError(*sorted(missing))
    return Candidate(name, "member", name, spec, folder.weights, None, (name,), folder, record["val"], record)


def find_variants(run: RunFolder, members: Mapping[str, Candidate]) -> dict[str, Candidate]:
    """Finished variants of these members, by label.

    Raises:
        ArtifactError: a record that is damaged.
    """
    variants = {}
    for path in sorted(run.variants.glob("*/variant.json")):
        try:
            values = read_json(path)
            member, label = members.get(values["of"]), path.parent.name
            if member is not None:
                variants[label] = Candidate(
                    label, values["kind"], member.name, member.spec, run.path / values["weights"], values["view"],
                    tuple(values["from"]), run.variant(label), values["val"], member.record,
                )  # fmt: skip
        except (ArtifactError, KeyError, TypeError) as error:
            raise ArtifactError(
                f"variant '{path.parent}' is damaged ({error!r}); delete that folder, and it can be made again"
            ) from error
    return variants


def write_variant(run: RunFolder, variant: Candidate) -> None:
    """Writes ``RUN/variants/LABEL/variant.json``."""
    values = {
        "name": variant.name, "kind": variant.kind, "of": variant.of, "view": variant.view,
        "weights": variant.weights.relative_to(run.path).as_posix(), "from": list(variant.made_from),
        "val": variant.val,
    }  # fmt: skip
    write_json(variant.folder.record, values)
