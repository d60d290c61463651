"""Evaluation with a report: the same page as that of a run, for any artifact and data set, in one pass."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor

from densemble.data.folder import FolderData
from densemble.data.torch_dataset import TorchData
from densemble.ensemble.ensemble import Ensemble
from densemble.errors import UsageError
from densemble.evaluation.bootstrap import bootstrap, bootstrap_gain
from densemble.evaluation.class_results import class_counts, class_values, count_image
from densemble.evaluation.disagreement import disagreement_of
from densemble.evaluation.scores import EnsembleMetrics, ScoredPrediction, Scores, evaluate
from densemble.evaluation.trust import reliability_table
from densemble.inference.drawing import as_rgb
from densemble.metrics import Metric
from densemble.report.chosen_images import ChosenImage, choose_images
from densemble.report.html_page import Values
from densemble.report.run_page import write_report
from densemble.report.strips import ImageStrip, Panel, draw_panels
from densemble.shapes import size_of
from densemble.storage.runs import strict
from densemble.storage.writing import require_writable

ENSEMBLE, UNCALIBRATED = "ensemble/", "uncalibrated/"
"""Keys of statistics beside the names of the members, which contain no slash."""
MAX_MEMBERS = 8


def evaluate_with_report(
    ensemble: Ensemble,
    data: FolderData | TorchData,
    split: str | None,
    path: Path,
    progress: Callable[[int, int], None] | None = None,
    title: str = "",
) -> Scores:
    """Score an ensemble as :func:`densemble.evaluation.scores.evaluate` and write the report of it.

    Args:
        ensemble: the ensemble; it runs once on each image.
        data: images and targets.
        split: name of the split, or ``None`` for the default.
        path: HTML file.
        progress: called with (done, total) after every image.
        title: heading of the page; default: number of members and name of the data.

    Raises:
        UsageError: the path is a folder.
        ResourceError: the folder of the file cannot be written.
    """
    if path.is_dir():
        raise UsageError(f"'{path}' is a folder; name the file of the report, for example '{path / 'report.html'}'")
    require_writable(path.parent)
    report = EvaluationReport(ensemble)
    scores = evaluate(ensemble, data, split, progress, report)
    name = data.path.name if isinstance(data, FolderData) else "the data set"
    count = len(ensemble.members)
    heading = title or f"Ensemble of {count} member{'s' if count > 1 else ''} on {name}"
    write_report(path, report.analysis(scores, name, heading), report.strips())
    return scores


class EvaluationReport:
    """Collects what a report shows, image by image; called with each :class:`ScoredPrediction`.

    Args:
        ensemble: the ensemble that is evaluated.
    """

    def __init__(self, ensemble: Ensemble) -> None:
        self._ensemble, self._task = ensemble, ensemble.task
        self._objective = ensemble.task.objective()
        self._counts = class_counts(ensemble.task)
        self._plain = EnsembleMetrics(ensemble.task) if ensemble.calibration is not None else None
        self._totals: dict[str, Tensor] = {}
        self._statistics: dict[str, list[Tensor]] = {}
        self._images: list[Values] = []
        self._shortlist: list[Values] = []
        self._panels: dict[int, tuple[tuple[Panel, ...], tuple[Panel, ...]]] = {}

    def __call__(self, scored: ScoredPrediction) -> None:
        """Add one image."""
        self._add_statistics({ENSEMBLE: scored.whole.metric, **scored.single})
        count_image(self._counts, self._task, scored.prediction.mean, scored.target[0])
        if self._plain is not None:
            combination = self._ensemble.combination.keep(list(scored.members))
            plain = replace(combination, calibration=None, guarantee=None)
            maps = list(scored.members.items())
            self._plain.update(plain.predict(maps, size=size_of(scored.target[0])), *scored.target)
            self._add_statistics({UNCALIBRATED: self._plain.metric})
        score = float(self._objective.value(self._statistics[ENSEMBLE][-1]))
        row = {"picture": scored.name, "number": scored.index, "disagreement": disagreement_of(scored.prediction)}
        self._images.append(strict({**row, "score": score}))
        self._shortlist = self._candidates([*self._shortlist, self._images[-1]])
        self._draw(scored)

    def _add_statistics(self, metrics: Mapping[str, Metric]) -> None:
        """Append the statistics of the last image: the change of the sums."""
        for name, metric in metrics.items():
            sums = metric.sums(self._objective.name)
            if sums is None:  # a member that could not predict the first images
                sums = torch.zeros_like(self._totals[ENSEMBLE])
            before = self._totals.get(name)
            self._statistics.setdefault(name, []).append(sums.clone() if before is None else sums - before)
            self._totals[name] = sums.clone()

    def _draw(self, scored: ScoredPrediction) -> None:
        """Draw the image if it is among the chosen ones so far, and forget drawings that no longer are."""
        chosen = {row["number"] for row in self._shortlist}
        if scored.index in chosen:
            image = as_rgb(scored.image[0].permute(1, 2, 0).numpy())
            members = {name: maps[0] for name, maps in list(scored.members.items())[:MAX_MEMBERS]}
            self._panels[scored.index] = draw_panels(image, scored.target[0], scored.prediction, members, self._task)
        self._panels = {number: panels for number, panels in self._panels.items() if number in chosen}

    def _candidates(self, rows: list[Values]) -> list[Values]:
        """Rows of the images that would be chosen from these."""
        chosen = {image.number for image in self._chosen(rows)}
        return [row for row in rows if row["number"] in chosen]

    def _chosen(self, rows: list[Values]) -> list[ChosenImage]:
        return choose_images(rows, self._objective.higher_is_better, len(self._ensemble.members))

    def strips(self) -> list[ImageStrip]:
        """Return the rows of panels of the chosen images."""
        return [
            ImageStrip(self._images[image.number]["picture"], image.score, image.caption, *self._panels[image.number],
                       image.leading)
            for image in self._chosen(self._shortlist)
        ]  # fmt: skip

    def analysis(self, scores: Scores, data: str, heading: str) -> Values:
        """Return the values of the page.

        Args:
            scores: result of the evaluation.
            data: name of the data set.
            heading: heading of the page.
        """
        objective, ensemble = self._objective, self._ensemble
        total = sum(ensemble.weights.values())
        scalars = {name: value for name, value in scores.items() if isinstance(value, float)}
        values: Values = {
            "run": heading,
            "made": datetime.now(UTC).strftime("%Y-%m-%d"),
            "task": scores["task"],
            "metric": objective.name,
            "higher_is_better": objective.higher_is_better,
            "pictures": scores["images"],
            "evaluated": self._evaluated(scores, data),
            "chosen": {"combine": ensemble.combine, "val": scalars,
                       "weights": {name: weight / total for name, weight in ensemble.weights.items()}},
            "members": self._members(scores, total),
            "dropped": _left_out(ensemble, scores),
            "disagreement": sorted(self._images, key=lambda row: -(row["disagreement"] or 0))
            if len(ensemble.members) > 1 else [],
            **_trust(scores, self._plain),
        }  # fmt: skip
        if "iou_per_class" in scores:
            columns = {name: metrics["iou_per_class"] for name, metrics in scores["members"].items()}
            values["per_class"] = {"classes": list(self._task.classes),
                                   "scores": {"ensemble": scores["iou_per_class"], **columns}}  # fmt: skip
            counted = class_values(self._counts)
            values |= {key: counted.pop(key) for key in ("confusion",) if key in counted}
            values["per_class"] |= counted
        return dict(strict(values))

    def _evaluated(self, scores: Scores, data: str) -> Values:
        """Return score and gains with intervals over the images, and how they were measured."""
        rows = {name: torch.stack(parts) for name, parts in self._statistics.items()}
        objective, images = self._objective, f"{scores['images']:,} images of the split '{scores['split']}' of {data}"
        basis = f"Measured on {images}, at the size of the targets; 95 % bootstrap intervals over the images."
        if scores["split"] != "test":
            basis += " If the ensemble was trained or assembled with these images, the scores are optimistic."
        gain, best = {}, None
        if len(self._ensemble.members) > 1:
            best = max(self._ensemble.members, key=lambda name: float(objective.signed(rows[name].sum(0))))
            basis += " The best member was selected on these images, so the gain over it is a conservative estimate."
            gain["total"] = bootstrap_gain(rows[ENSEMBLE], rows[best], objective)._asdict()
        plain = rows.get(UNCALIBRATED)
        if plain is not None and (best is not None or not torch.equal(plain, rows[ENSEMBLE])):
            if best is not None:
                gain["selection"] = bootstrap_gain(plain, rows[best], objective)._asdict()
            gain["calibration"] = bootstrap_gain(rows[ENSEMBLE], plain, objective)._asdict()
        score = bootstrap(rows[ENSEMBLE], objective)._asdict()
        return {"images": images, "basis": basis, "score": score, "gain": gain, "best_member": best}

    def _members(self, scores: Scores, total: float) -> list[Values]:
        return [
            {"name": name, "score": scores["members"][name].get(self._objective.name),
             "parameters": sum(parameter.numel() for parameter in member.parameters()),
             "share": self._ensemble.weights[name] / total}
            for name, member in self._ensemble.named_members()
        ]  # fmt: skip


def _left_out(ensemble: Ensemble, scores: Scores) -> list[Values]:
    """Return the members that were left out, of the ensemble or of single images, with the reason."""
    dropped = [{"name": name, "reason": reason} for name, reason in ensemble.left_out.items()]
    images: dict[str, list[str]] = {}
    for row in scores.get("without", []):
        for name, reason in row["members"].items():
            images.setdefault(name, []).append(reason)
    dropped += [
        {"name": name, "reason": f"{reasons[0]} (of {len(reasons)} images)"} for name, reasons in images.items()
    ]
    return dropped


def _trust(scores: Scores, plain: EnsembleMetrics | None) -> Values:
    """Return calibration, risk and coverage, and guarantee, if the evaluation has them."""
    values: Values = {}
    before = {} if plain is None else plain.compute()
    if "risk_coverage" in scores:
        values["risk_coverage"] = {**scores["risk_coverage"], "random": scores["risk_coverage"]["risk"]}
    if "guarantee" in scores:
        values["guarantee"] = scores["guarantee"]
    if "reliability" in scores:
        after = {**scores, "table": scores["reliability"]}
        if plain is None:
            values["calibration"] = {"ensemble as it is": after}
        else:
            values["calibration"] = {"before": {**before, "table": reliability_table(plain.metric)}, "after": after}
    elif scores.get("interval_coverage", {}).get("coverage"):
        new, old = scores["interval_coverage"], before.get("interval_coverage", {})
        rows = [{"nominal": level, "after": covered} for level, covered in zip(new["levels"], new["coverage"],
                                                                              strict=True)]  # fmt: skip
        for row, covered in zip(rows, old.get("coverage") or [], strict=False):
            row["before"] = covered
        values["calibration"] = {"coverage": rows}
    return values
