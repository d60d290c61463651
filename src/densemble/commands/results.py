"""What ``train``, ``assemble`` and ``predict`` made, as plain values for ``--json``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from densemble.inference.saved import SavedPrediction
    from densemble.run import Run

RECORDED = ("state", "epochs", "best_epoch", "seconds", "parameters", "val", "error")
"""Keys of a member's record that the JSON of a training contains."""
SUMMARY = ("select", "combine", "metric", "val", "milliseconds", "temperatures", "calibration", "guarantee", "dropped")
"""Keys of ``ensemble.json`` that the JSON of an assembly contains."""


def train_values(out: Path) -> dict[str, Any]:
    """Return the values of a training: the members with their states and scores, and the ensemble."""
    from densemble.run import Run

    run = Run(out)
    return {
        "run": str(out),
        "task": run.task.name,
        "metric": run.task.primary,
        "members": [_member(run, number, name) for number, name in enumerate(run.config.member_names())],
        "baselines": run.baselines(),
        **(assemble_values(run, run.folder.artifact) if run.folder.artifact.is_file() else {}),
    }


def assemble_values(run: "Run", artifact: Path) -> dict[str, Any]:
    """Return the values of the last assembly of a run, which was saved as ``artifact``."""
    from densemble.storage.run_records import read_ensemble

    summary = read_ensemble(run.folder)
    crossed = run.analysis().get("cross_fitted")
    return {
        "run": str(run.folder.path),
        "artifact": str(artifact),
        "bytes": artifact.stat().st_size,
        "report": str(run.folder.report),
        "weights": {name: weight for name, weight in summary["weights"].items() if weight > 0},
        **{key: summary.get(key) for key in SUMMARY},
        "cross_fitted": crossed or None,
    }


def predict_values(
    artifact: Path, out: Path, saved: Sequence["SavedPrediction"], failed: Sequence[str]
) -> dict[str, Any]:
    """Return the values of a prediction: the files of each image, and the reasons why images failed."""
    return {
        "artifact": str(artifact),
        "out": str(out),
        "images": len(saved) + len(failed),
        "predicted": len(saved),
        "earlier": sum(p.earlier for p in saved),
        "failed": list(failed),
        "predictions": [
            {"image": str(p.path), "files": [str(file) for file in p.files], "earlier": p.earlier}
            | ({"without": dict(p.without)} if p.without else {})
            for p in saved
        ],
    }


def _member(run: "Run", number: int, name: str) -> dict[str, Any]:
    """Return the state and scores of a member; one without a record was left out for lack of time."""
    from densemble.storage.run_records import member_state, read_member

    folder = run.folder.member(number, name)
    state = member_state(folder)
    record = (read_member(folder) if state != "damaged" else None) or {"state": state}
    return {"name": name, **{key: record[key] for key in RECORDED if key in record}}
