"""Facts of a model card: what an artifact holds, and the figures that its assembly recorded."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.state import describe as describe_parts
from densemble.ensemble.state import member_settings
from densemble.errors import ArtifactError, UsageError
from densemble.report.html_page import Values
from densemble.run import Run
from densemble.selection.recorded_figures import KEY, recorded_figures
from densemble.selection.variants import find_candidates
from densemble.storage.artifact import describe, fingerprint
from densemble.storage.hub_download import remedy
from densemble.storage.run_records import ArtifactMetrics, require_record
from densemble.storage.runs import RunFolder
from densemble.untrusted import Unreadable


@dataclass(frozen=True)
class CardFacts:
    """Facts of a model card.

    Attributes:
        ensemble: the loaded artifact.
        scores: scores of the saved ensemble on the validation images; empty if none are stored.
        member_scores: scores of each member there, by name.
        figures: figures of the assembly, see :func:`recorded_figures`; empty if they are unknown.
        versions: versions of the libraries that wrote the artifact.
        licence: note about licences in the artifact.
        fingerprint: SHA-256 that identifies the artifact.
    """

    ensemble: Ensemble
    scores: Mapping[str, Any]
    member_scores: Mapping[str, Mapping[str, Any]]
    figures: Mapping[str, Any]
    versions: Mapping[str, str]
    licence: str
    fingerprint: str

    @property
    def data(self) -> Mapping[str, Any]:
        """Name, splits and digest of the data; empty if they are unknown."""
        values: Mapping[str, Any] = self.figures.get("data", {})
        return values

    @property
    def cross_fitted(self) -> Mapping[str, Any]:
        """Scores on images that the ensemble was not fitted on; empty if they are unknown."""
        return self.figures.get("cross_fitted") or {}

    @property
    def metric(self) -> str:
        """Name of the metric of the selection."""
        return str(self.figures.get("metric", self.ensemble.task.primary))

    @property
    def val_images(self) -> int | None:
        """Number of validation images; ``None`` if it is unknown."""
        count: int | None = self.data.get("splits", {}).get("val")
        return count

    def describe(self) -> dict[str, Any]:
        """Return the facts as plain values."""
        parts = {name: value for name, value in describe_parts(self.ensemble).items() if name != "metrics"}
        return {
            "fingerprint": self.fingerprint,
            "meaning": self.ensemble.task.meaning,
            **parts,
            "members": member_settings(self.ensemble.named_members()),
            "weights": self.ensemble.weights,
            "scores": self.scores,
            "member_scores": self.member_scores,
            "assembly": self.figures,
            "versions": self.versions,
            "licence": self.licence,
        }


def card_facts(artifact: Path, ensemble: Ensemble, run: str | Path | None = None) -> CardFacts:
    """Gather the facts of an artifact.

    Args:
        artifact: file of the artifact.
        ensemble: the loaded artifact.
        run: run folder, for artifacts that record no figures of their assembly. Default: the folder of the artifact,
            if it is a run folder whose last assembly is this artifact.

    Raises:
        ArtifactError: ``run`` is no run folder, or has no assembly.
        UsageError: the last assembly of ``run`` is another ensemble.
    """
    description = describe(artifact)
    metrics = description["metrics"]
    try:
        require_record(metrics, ArtifactMetrics)
    except Unreadable as error:
        raise ArtifactError(f"artifact '{artifact}' has damaged figures ({error}); {remedy(artifact)}") from error
    figures = metrics.get(KEY)
    if figures is None and run is not None:
        figures = _figures_of(Run(run), description)
    elif figures is None and RunFolder(artifact.parent).state.is_file():
        opened = Run(artifact.parent)
        figures = _figures_of(opened, description) if _differences(opened, description) == "" else {}
    return CardFacts(
        ensemble, metrics.get("val", {}), metrics.get("members", {}), figures or {}, description.get("versions", {}),
        description.get("licence", ""), fingerprint(artifact),
    )  # fmt: skip


def _figures_of(run: Run, description: Values) -> dict[str, Any]:
    if differing := _differences(run, description):
        raise UsageError(
            f"the last assembly of run '{run.folder.path}' is not this artifact: {differing}; leave the run out, or "
            "assemble the artifact again"
        )
    names = {entry["name"] for entry in description["members"]}
    used = [candidate for candidate in find_candidates(run.folder, run.config) if candidate.name in names]
    return recorded_figures(run.folder, run.analysis(), used)


def _differences(run: Run, description: Values) -> str:
    """Describe a difference between the last assembly of a run and an artifact; empty if there is none."""
    analysis = run.analysis()
    if "chosen" not in analysis:
        raise ArtifactError(
            f"run '{run.folder.path}' has no analysis.json; assemble it: densemble assemble RUN -o FILE"
        )
    chosen = analysis["chosen"]
    weights = {name: weight for name, weight in chosen["weights"].items() if weight > 0}
    stored = {entry["name"]: entry["weight"] for entry in description["members"]}
    if set(weights) != set(stored):
        return f"it has the members {', '.join(weights)}, the artifact {', '.join(stored)}"
    if not all(math.isclose(weights[name], stored[name], rel_tol=1e-6) for name in weights):
        return "the weights of the members differ"
    parts = {"combine": chosen["combine"], "temperatures": chosen["temperatures"], "calibration": chosen["calibration"]}
    parts |= {"guarantee": chosen["guarantee"]}
    differing = [name for name, value in parts.items() if description.get(name) != value]
    if differing:
        return f"the values of {' and '.join(differing)} differ"
    return "" if chosen["val"] == description["metrics"].get("val") else "the scores differ"


def one_number(score: Any) -> float | None:
    """Return a score that is a number; others have several values."""
    return score if isinstance(score, int | float) else None
