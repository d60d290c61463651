"""Configure and train the student, and the same network on the targets alone; both are ordinary runs of one member."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from densemble.config import RunConfig
from densemble.data.decoded_cache import file_digests
from densemble.data.folder import FolderData
from densemble.distillation.options import open_data
from densemble.distillation.teacher import Teacher
from densemble.engines.configure import resolve_data
from densemble.engines.local import train_members
from densemble.engines.member import raise_failures
from densemble.ensemble.ensemble import Ensemble
from densemble.errors import UsageError
from densemble.nets.dense import DenseModel
from densemble.run import Run
from densemble.shapes import Size
from densemble.storage.runs import RunFolder, read_json
from densemble.storage.writing import require_writable, write_json
from densemble.tasks.losses.mixture import loss_names
from densemble.user_code import is_user_function

SETTINGS = "distillation_settings.json"
"""Teacher and options of a distillation, in the run folder of the student."""


def labels_folder(run: RunFolder) -> RunFolder:
    """Return the run of the same network on the targets alone."""
    return RunFolder(run.path / "labels-alone")


def resolve_student(
    ensemble: Ensemble, data: FolderData | str | Path, student: str | Mapping[str, Any], settings: Mapping[str, Any]
) -> tuple[FolderData, RunConfig]:
    """Open the data and make the configuration of the student; missing settings are those of the ensemble.

    Raises:
        ConfigError: unknown or wrong settings.
        DataError: the data does not fit the ensemble.
        UsageError: several students, or cached features.
    """
    task = ensemble.task.describe()
    values = {"out_size": ensemble.out_size, **settings, "members": [student]}
    taken = {"loss": task.get("loss_name"), "class_weights": task.get("class_weights")}
    if "preset" not in settings:
        taken["input_size"] = _input_size(ensemble)
    values |= {key: value for key, value in taken.items() if value and key not in settings}
    folder = open_data(ensemble, data, dict(values.pop("data", None) or {}))
    folder, config = resolve_data(folder, None, values)
    if len(config.members) != 1:
        raise UsageError(f"a distillation trains one student, not {len(config.members)}; name one backbone")
    if any(is_user_function(name) for name in loss_names(config.loss)):
        raise UsageError(f"loss: {config.loss} is defined for targets, and a student learns from maps; leave it out")
    if config.members[0].training(config.training).cache_features:
        raise UsageError("cache_features: a student learns the maps of augmented images; leave it out")
    return folder, config


def _input_size(ensemble: Ensemble) -> Size | None:
    """Return the largest input size of the members."""
    networks = [network for network in ensemble.modules() if isinstance(network, DenseModel)]
    known = [network.spec.input_size for network in networks if network.spec.input_size is not None]
    return max(known, key=lambda size: size[0] * size[1], default=None)


def is_calibrated(ensemble: Ensemble) -> bool:
    """Return whether an ensemble has a calibration or temperatures."""
    return ensemble.calibration is not None or any(value != 1 for value in ensemble.temperatures.values())


def require_same_distillation(run: RunFolder, teacher: Teacher, resume: bool) -> None:
    """Write the teacher and the options into the run folder, or check that they are the same as before.

    Raises:
        UsageError: the folder holds a run, or a distillation with another teacher or other options.
    """
    options, file = teacher.options, run.path / SETTINGS
    values = {
        "ensemble": teacher.fingerprint,
        "label_share": options.label_share,
        "weighting": options.weighting,
        "unlabelled": file_digests(teacher.files),
    }
    if run.config.exists() and not resume:
        raise UsageError(f"'{run.path}' holds a run; continue it with --resume, or choose another name with -o")
    stored = read_json(file) if file.is_file() else values
    differing = [name for name, value in values.items() if stored.get(name) != value]
    if differing and run.config.exists():
        raise UsageError(
            f"'{run.path}' holds a distillation with another {' and another '.join(differing)}; repeat its options, or "
            "choose another name with -o"
        )
    require_writable(run.path)
    write_json(file, values)


def train_student(
    data: FolderData, config: RunConfig, out: Path, resume: bool, calibrate: str, teacher: Teacher | None = None
) -> Ensemble:
    """Train the network of a configuration, or keep a finished one, and return it as an ensemble of one.

    Args:
        data: images and targets; its validation images select the best epoch and fit the calibration.
        config: configuration with one member.
        out: run folder.
        resume: continue an interrupted training.
        calibrate: see :meth:`densemble.Run.assemble`.
        teacher: ensemble to learn from; ``None`` trains on the targets alone.

    Raises:
        DensembleError: the training failed.
    """
    raise_failures(train_members(data, config, out, resume, teach=None if teacher is None else teacher.teach))
    run = Run(out, data.path, [member.backbone for member in config.members])
    return run.assemble("all", calibrate=calibrate)
