"""What making any variant takes: trained members, their held-out predictions, and a folder that is whole or absent."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from torch import nn

from densemble.config import RunConfig
from densemble.data.folder import FolderData
from densemble.engines.plan import sizes
from densemble.errors import ArtifactError, UsageError, WeightsError
from densemble.evaluation.scores import Scores, predict_split
from densemble.selection.variants.candidate import Candidate, find_members, write_variant
from densemble.storage.arrays import write_npy
from densemble.storage.runs import MemberFolder, RunFolder, require_writable
from densemble.tasks import Task

Report = Callable[[str], None]


@dataclass(frozen=True)
class VariantMaker:
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
    def members(self) -> dict[str, Candidate]:
        """Members whose training is finished, by name, in their order."""
        return find_members(self.run, self.config)

    def snapshots(self, member: Candidate) -> list[Candidate]:
        """Snapshots of a member, not scored yet; the best epoch is the member itself and no snapshot of it."""
        folder = MemberFolder(member.folder.path)
        epochs = sorted(int(path.stem) for path in folder.snapshots.glob("*.safetensors") if path.stem.isdigit())
        labels = {f"{member.name}-epoch{epoch}": epoch for epoch in epochs if epoch != member.record["best_epoch"]}
        return [
            replace(
                member, name=label, kind="snapshot", weights=folder.snapshot(epoch), made_from=(label,),
                folder=self.run.variant(label), val={},
            )
            for label, epoch in labels.items()
        ]  # fmt: skip

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

    def add(self, variant: Candidate) -> None:
        """Makes a variant that is not there yet; one that cannot be made is left out, with a line of report."""
        with self.skipping(variant.name):
            if self.is_new(variant.name):
                self.keep(variant)

    def predict(self, network: nn.Module, member: str) -> tuple[Any, Scores]:
        """Maps fp16 ``(N, K, h, w)`` of the validation images, of the size that is kept of ``member``, and scores."""
        settings = self.config.members[self.config.member_names().index(member)]
        return predict_split(network.eval(), self.task, self.data, "val", sizes(self.config, settings)[2])

    def score(self, scores: Scores) -> float:
        """The primary score, higher is better; the worst where there is none."""
        value = scores.get(self.task.primary)
        return float("-inf") if value is None else float(value) * (1 if self.task.higher_is_better else -1)

    def keep(self, variant: Candidate) -> None:
        """Predicts, and writes the folder, the record last: without it there is no variant."""
        network = variant.member(variant.network())
        require_writable(variant.folder.path)
        maps, scores = self.predict(network, variant.of)
        write_npy(variant.predictions, maps)
        write_variant(self.run, replace(variant, val=scores))
        value = scores.get(self.task.primary)
        self.report(f"{variant.name}: val {self.task.primary} {'none' if value is None else format(value, '.4f')}")
