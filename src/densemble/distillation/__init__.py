"""Distillation: train one student on the maps of an ensemble (Hinton et al. 2015), and report what it keeps."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densemble.data.folder import FolderData
from densemble.distillation.comparison import BEST, LABELS, STUDENT, WHOLE, best_member, compare
from densemble.distillation.options import DistillOptions
from densemble.distillation.student import (
    is_calibrated,
    labels_folder,
    require_same_distillation,
    resolve_student,
    train_student,
)
from densemble.distillation.teacher import Teacher, unlabelled_files
from densemble.engines.leftovers import remove_leftovers
from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.state import fingerprint_of
from densemble.messages import shown
from densemble.nets.network_arguments import unwrapped
from densemble.progress.display import shown_progress
from densemble.storage.artifact import require_artifact_name, save
from densemble.storage.folder_lock import folder_lock
from densemble.storage.runs import RunFolder, strict
from densemble.storage.writing import write_json

__all__ = ["DistillOptions", "Distilled", "distill"]

log = logging.getLogger(__name__)
REPORT = "distillation.json"
"""Report in the run folder of the student."""


@dataclass(frozen=True)
class Distilled:
    """Result of a distillation.

    Attributes:
        student: the student, an ensemble of one network.
        report: scores, gains, share of the gain that is kept, and times, as plain values.
        path: artifact of the student.
        run: run folder of the student.
    """

    student: Ensemble
    report: dict[str, Any]
    path: Path
    run: Path


def distill(
    ensemble: Ensemble,
    data: FolderData | str | Path,
    student: str | Mapping[str, Any],
    out: str | Path,
    options: DistillOptions | None = None,
    *,
    data_options: Mapping[str, Any] | None = None,
    resume: bool = False,
    report: Callable[[str], None] | None = print,
    **settings: Any,
) -> Distilled:
    """Train one network on the maps of an ensemble, save it as an artifact, and compare it with the ensemble.

    The loss is a mixture of the task's loss on the targets and of a loss on the calibrated maps of the ensemble, which
    is weighted by the agreement of its members. The student is validated, and calibrated if the ensemble is, on images
    that are not reported: on the validation split if the data has a test split, else on a tenth of the training
    images; in the second case the validation split is reported.

    Args:
        ensemble: the teacher; it is not changed.
        data: images and targets, opened with the reading options of the ensemble.
        student: name of a backbone, or a mapping with the keys of a member in run.yaml.
        out: artifact of the student, ``NAME.safetensors``; its run folder is ``NAME``.
        options: options of the distillation.
        data_options: options of :class:`FolderData` that override those of the ensemble or of ``data``.
        resume: continue an interrupted distillation.
        report: called with each line that the loggers ``densemble.*`` write; ``None`` leaves it to their handlers.
        settings: keys of run.yaml, for instance ``training={"epochs": 5}``. Defaults: loss, class weights and output
            size of the ensemble, and the largest input size of its members.

    Raises:
        UsageError: wrong settings, several students, or another distillation in the run folder.
        DataError: the data does not fit the ensemble, or cannot be read.
        DensembleError: the training failed.
    """
    path, options, ensemble = Path(out), options or DistillOptions(), unwrapped(ensemble)
    require_artifact_name(path)
    run = RunFolder(path.with_suffix(""))
    with shown(report), shown_progress(), folder_lock(run.path):
        folder, config = resolve_student(ensemble, data, student, {**settings, "data": data_options})
        files = unlabelled_files(ensemble, folder, options.unlabelled)
        teacher = Teacher(ensemble, fingerprint_of(ensemble), options, files)
        require_same_distillation(run, teacher, resume)
        calibrate = "auto" if is_calibrated(ensemble) else "none"
        models = {STUDENT: train_student(folder, config, run.path, resume, calibrate, teacher)}
        if options.baseline:
            log.info("the same network on the targets alone:")
            models[LABELS] = train_student(folder, config, labels_folder(run).path, resume, calibrate)
        name, models[BEST] = best_member(ensemble)
        log.info(f"comparing the models on the {len(folder.split('test'))} test images")
        values = compare({**models, WHOLE: ensemble}, folder, "test") | _facts(folder, teacher, name)
        models[STUDENT].metrics["distillation"] = strict(values)
        for target in (run.artifact, path):
            save(models[STUDENT], target)
        write_json(run.path / REPORT, strict(values))
        for finished in (run, labels_folder(run)):
            remove_leftovers(finished, config)
    return Distilled(models[STUDENT], values, path, run.path)


def _facts(data: FolderData, teacher: Teacher, name: str) -> dict[str, Any]:
    """Return which images were used for what, and the options of the distillation."""
    from_val = data.options["val_from_train"] is not None
    return {
        "best_member": name,
        "reported_on": "val" if from_val else "test",
        "ensemble_fitted_on_these_images": from_val,
        "training_images": len(data.train),
        "validation_images": len(data.val),
        "unlabelled_images": len(teacher.files),
        "label_share": teacher.options.label_share,
        "weighting": teacher.options.weighting,
    }
