"""``RUN/variants/LABEL/variant.json``: what a variant is."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from densemble.errors import ArtifactError
from densemble.evaluation import Scores
from densemble.storage.runs import RunFolder, read_json

VariantKind = Literal["view", "snapshot", "soup"]


@dataclass(frozen=True)
class Variant:
    """A network that was made from trained members without training it.

    Attributes:
        name: its label.
        kind: what was done.
        of: the member whose specification its network has.
        view: through which it looks at pictures; ``None``: as they are.
        weights: file of its network's weights, seen from the run folder.
        made_from: names of the members and snapshots whose weights it has, or has the mean of.
        val: its held-out scores.
        predictions: file of its maps of the validation pictures.
    """

    name: str
    kind: VariantKind
    of: str
    view: str | None
    weights: str
    made_from: tuple[str, ...]
    val: Scores
    predictions: Path

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "name": self.name, "kind": self.kind, "of": self.of, "view": self.view, "weights": self.weights,
            "from": list(self.made_from), "val": self.val,
        }  # fmt: skip


def read_variants(run: RunFolder) -> dict[str, Variant]:
    """All finished variants of a run, by label.

    Raises:
        ArtifactError: a record that is damaged.
    """
    return {path.parent.name: _read(path, run) for path in sorted(run.variants.glob("*/variant.json"))}


def _read(path: Path, run: RunFolder) -> Variant:
    try:
        values = read_json(path)
        return Variant(
            values["name"], values["kind"], values["of"], values["view"], values["weights"], tuple(values["from"]),
            values["val"], run.variant(path.parent.name).predictions,
        )  # fmt: skip
    except (ArtifactError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"variant '{path.parent}' is damaged ({error!r}); delete that folder, and it can be made again"
        ) from error
