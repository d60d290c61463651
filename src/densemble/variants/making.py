"""What making any variant takes: trained members, their held-out predictions, and a folder that is whole or absent."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from densemble.config import MemberConfig, RunConfig
from densemble.data.folder import FolderData
from densemble.engines.plan import sizes
from densemble.errors import ArtifactError, UsageError, WeightsError
from densemble.evaluation import Scores, predict_split
from densemble.nets.dense import DenseModel, DenseSpec
from densemble.nets.weights import read_state
from densemble.storage.artifact import restore
from densemble.storage.runs import MemberFolder, RunFolder, read_json, require_writable, write_json
from densemble.storage.weights import write_maps
from densemble.tasks import Task
from densemble.variants.record import Variant, VariantKind

Report = Callable[[str], None]


@dataclass(frozen=True)
class Trained:
    """A member whose training is finished."""

    name: str
    config: MemberConfig
    folder: MemberFolder
    record: dict[str, Any]

    @property
    def spec(self) -> DenseSpec:
        """Of its network."""
        return DenseSpec.from_dict(self.record["spec"])

    def network(self, weights: Path) -> DenseModel:
        """Its network with the weights of a file.

        Raises:
            WeightsError: they are missing or damaged.
            ArtifactError: they do not fit.
        """
        return restore(self.spec, read_state(weights), f"member '{self.name}'")

    def snapshots(self) -> dict[str, int]:
        """Epochs of which there is a snapshot, by label; the best epoch is the member itself and no snapshot of it."""
        epochs = sorted(int(path.stem) for path in self.folder.snapshots.glob("*.safetensors") if path.stem.isdigit())
        return {f"{self.name}-epoch{epoch}": epoch for epoch in epochs if epoch != self.record["best_epoch"]}


@dataclass(frozen=True)
class Making:
    """What variants are made of, and where.

    Attributes:
        run, config, task, data: of the training.
        report: called with one line of text at every step.
    """

    run: RunFolder
    config: RunConfig
    task: Task
    data: FolderData
    report: Report

    @cached_property
    def trained(self) -> list[Trained]:
        """Members whose training is finished, in their order."""
        found = []
        for number, (name, config) in enumerate(zip(self.config.member_names(), self.config.members, strict=True)):
            folder = self.run.member(number, name)
            record = read_json(folder.record) if folder.record.is_file() else {}
            if record.get("state") == "done":
                found.append(Trained(name, config, folder, record))
        return found

    @contextmanager
    def skipping(self, label: str) -> Iterator[None]:
        """One variant that cannot be made does not stop the others."""
        try:
            yield
        except (ArtifactError, WeightsError, UsageError, RuntimeError, ValueError) as error:
            self.report(f"{label}: left out: {' '.join(str(error).split())}")

    def is_new(self, label: str) -> bool:
        """Whether it is still to be made.

        Raises:
            UsageError: a member has its name.
        """
        if label in self.config.member_names():
            raise UsageError("a member has that name; give it another one")
        if not self.run.variant(label).record.is_file():
            return True
        self.report(f"{label}: already there, kept")
        return False

    def predict(self, network: nn.Module, member: Trained) -> tuple[Any, Scores]:
        """Maps fp16 ``(N, K, h, w)`` of the validation pictures, as they are kept of ``member``, and scores."""
        return predict_split(network.eval(), self.task, self.data, "val", sizes(self.config, member.config)[2])

    def score(self, scores: Scores) -> float:
        """The primary score, higher is better; the worst where there is none."""
        value = scores.get(self.task.primary)
        return float("-inf") if value is None else float(value) * (1 if self.task.higher_is_better else -1)

    def keep(
        self,
        label: str,
        kind: VariantKind,
        of: Trained,
        network: nn.Module,
        weights: Path,
        made_from: Sequence[str],
        view: str | None = None,
    ) -> None:
        """Predicts, and writes the folder, the record last: without it there is no variant."""
        folder = self.run.variant(label)
        require_writable(folder.path)
        maps, scores = self.predict(network, of)
        write_maps(folder.predictions, maps)
        place = weights.relative_to(self.run.path).as_posix()
        variant = Variant(label, kind, of.name, view, place, tuple(made_from), scores, folder.predictions)
        write_json(folder.record, variant.as_dict())
        value = scores.get(self.task.primary)
        self.report(f"{label}: val {self.task.primary} {'none' if value is None else format(value, '.4f')}")
