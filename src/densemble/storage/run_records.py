"""Records in a run folder and in the cache: the keys that are read back, with their types.

A file may be damaged, or written by a stranger. Unknown keys are kept. A required record that does not fit is an
ArtifactError with a remedy; an optional one is left out with a warning.
"""

import logging
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, field_validator, model_validator

from densemble.errors import ArtifactError, UsageError
from densemble.nets.dense import DenseSpec
from densemble.storage.description import read_spec, require_task_values
from densemble.storage.runs import MemberFolder, RunFolder, read_json
from densemble.untrusted import Unreadable, excerpt, validated

log = logging.getLogger(__name__)
Record = TypeVar("Record", bound="RunRecord")

_Number = float | None
_Scores = dict[str, float | list[JsonValue] | dict[str, JsonValue] | None]
_Count = Annotated[int, Field(ge=0, lt=1 << 62)]
_Nothing = Annotated[dict[str, JsonValue], Field(max_length=0)]


class RunRecord(BaseModel):
    """Base of all records; unknown keys are allowed."""

    model_config = ConfigDict(extra="allow")


class RunState(RunRecord):
    """``run.json``."""

    data: str
    task: dict[str, JsonValue]
    val: list[str]

    @field_validator("task")
    @classmethod
    def _known(cls, task: dict[str, Any]) -> dict[str, Any]:
        try:
            require_task_values(task)
        except UsageError as error:
            raise ValueError(str(error)) from error
        return task


class MemberState(RunRecord):
    """``member.json`` of any member."""

    state: Literal["running", "done", "failed", "left out"] | None = None


class TrainedMember(MemberState):
    """``member.json`` of a member whose training is finished."""

    spec: dict[str, JsonValue]
    val: _Scores
    parameters: _Count
    epochs: Annotated[float, Field(ge=0)]
    seconds: Annotated[float, Field(ge=0)]
    best_epoch: _Count | None = None
    loaded: str = ""
    config: dict[str, JsonValue] = {}

    @field_validator("spec")
    @classmethod
    def _buildable(cls, spec: dict[str, Any]) -> dict[str, Any]:
        read_spec(spec)
        return spec


class VariantRecord(RunRecord):
    """``variant.json``."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)
    kind: Literal["view", "snapshot", "soup"]
    of: str
    view: Annotated[str, Field(max_length=100)] | None
    weights: str
    made_from: list[str] = Field(alias="from")
    val: _Scores

    @field_validator("weights")
    @classmethod
    def _inside(cls, weights: str) -> str:
        path = PurePosixPath(weights)
        if path.is_absolute() or ".." in path.parts or "\\" in weights or "\0" in weights:
            raise ValueError("it is not a file of the run")
        return weights


class ScoreInterval(RunRecord):
    """A value with its interval."""

    value: _Number = None
    low: _Number = None
    high: _Number = None


class _Gain(RunRecord):
    total: ScoreInterval
    selection: ScoreInterval
    calibration: ScoreInterval


class CrossFitted(RunRecord):
    """Scores on images that the ensemble was not fitted on."""

    folds: str
    score: ScoreInterval
    gain: _Gain
    scores: _Scores = {}
    best_member: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        whole, parts = (self.score, self.gain.total), (self.gain.selection, self.gain.calibration)
        numbers = [*(n for i in whole for n in (i.value, i.low, i.high)), *(interval.value for interval in parts)]
        if self.score.value is not None and None in numbers:
            raise ValueError("an interval has no number")
        return self


class _NamedScore(RunRecord):
    name: str
    score: _Number = None


class _Compared(_NamedScore):
    """A row about a selection strategy or a combination rule."""

    low: _Number = None
    high: _Number = None
    gain_over_best: ScoreInterval | None = None
    gain_over_all: ScoreInterval | None = None
    gain_over_mean: ScoreInterval | None = None
    members: _Number = None
    milliseconds: _Number = None
    nll: _Number = None
    ece: _Number = None


class _DroppedRow(RunRecord):
    name: str
    reason: str = ""


class EnsembleRecord(RunRecord):
    """``ensemble.json``: the last selection."""

    select: str
    combine: str
    weights: dict[str, Annotated[float, Field(ge=0)]]
    val: _Scores
    cross_fitted: CrossFitted | _Nothing | None = None
    temperatures: dict[str, float] = {}
    calibration: dict[str, JsonValue] | None = None
    guarantee: dict[str, JsonValue] | None = None


class AnalysisRecord(RunRecord):
    """``analysis.json``."""

    metric: str
    pictures: _Count
    chosen: EnsembleRecord
    cross_fitted: CrossFitted | _Nothing | None = None
    strategies: list[_Compared] = []
    rules: list[_Compared] = []
    dropped: list[_DroppedRow] = []
    baselines: list[_NamedScore] = []


class BaselinesRecord(RunRecord):
    """``baselines.json``."""

    __pydantic_extra__: dict[str, _Scores]


class MillisecondsRecord(RunRecord):
    """``milliseconds.json``."""

    machine: str
    milliseconds: dict[str, Annotated[float, Field(gt=0)]]


class DigestsRecord(RunRecord):
    """``data_digests.json``."""

    __pydantic_extra__: dict[str, dict[str, str]]


class DataReportRecord(RunRecord):
    """``data_report.json``."""

    splits: dict[str, _Count] = {}
    left_out: list[str] = []
    layout: str = ""
    split_by: str | None = None


class ConsideredRecord(RunRecord):
    """``considered.json`` of a soup."""

    names: list[str]


class _FoundProblem(RunRecord):
    kind: str
    message: str
    remedy: str
    severity: Literal["error", "warning"]


class _CheckedSplit(RunRecord):
    pairs: _Count


class CheckRecord(RunRecord):
    """A cached data check."""

    splits: dict[str, _CheckedSplit]
    problems: list[_FoundProblem]


class _DataFigures(RunRecord):
    name: str
    splits: dict[str, _Count]
    layout: str = ""
    split_by: str | None = None
    left_out: _Count = 0
    digest: str | None = None


class _CalibrationFigures(RunRecord):
    before: dict[str, _Number] = {}
    after: dict[str, _Number] = {}
    coverage: list[dict[str, _Number]] = []


class _GuaranteeFigures(ScoreInterval):
    coverage: _Number = None
    checked_on: _Count = 0


class _MemberFigures(RunRecord):
    kind: str = ""
    loaded: str = ""
    weights: str | None = None


class AssemblyFigures(RunRecord):
    """What an artifact records of its assembly, see :func:`densemble.selection.recorded_figures.recorded_figures`."""

    metric: str = ""
    select: str = ""
    images: _Count | None = None
    data: _DataFigures | _Nothing = {}
    cross_fitted: CrossFitted | _Nothing | None = None
    baselines: list[_NamedScore] = []
    calibration: _CalibrationFigures | None = None
    guarantee: _GuaranteeFigures | None = None
    members: dict[str, _MemberFigures] = {}


class ArtifactMetrics(RunRecord):
    """``metrics`` in the description of an artifact."""

    val: _Scores = {}
    members: dict[str, _Scores] = {}
    assembly: AssemblyFigures | None = None


def require_record(values: Mapping[str, Any], kind: type[Record]) -> None:
    """Check the keys of a record.

    Raises:
        Unreadable: a key is missing or has the wrong type.
    """
    validated(TypeAdapter(kind), dict(values))


def read_record(path: Path, kind: type[Record], remedy: str) -> dict[str, Any]:
    """Read a required record.

    Args:
        path: the file.
        kind: keys that it must have.
        remedy: what the user can do about a damaged file, for the message.

    Raises:
        ArtifactError: the file is absent, damaged, or lacks keys.
    """
    values = read_json(path)
    try:
        require_record(values, kind)
    except Unreadable as error:
        raise ArtifactError(f"'{path}' is damaged ({error}); {remedy}") from error
    return values


def optional_record(path: Path, kind: type[Record], consequence: str) -> dict[str, Any] | None:
    """Read an optional record; ``None`` if it is absent, or damaged, which is logged.

    Args:
        path: the file.
        kind: keys that it must have.
        consequence: what happens without it, for the warning.
    """
    if not path.exists():
        return None
    try:
        return read_record(path, kind, consequence)
    except ArtifactError as error:
        warn_once(f"warning: {excerpt(str(error), 600)}")
        return None


@lru_cache(maxsize=1024)
def warn_once(text: str) -> None:
    """Log a warning about a file, unless this process has logged it before."""
    log.warning(text)


def read_state(run: RunFolder) -> dict[str, Any]:
    """Read ``run.json``.

    Raises:
        ArtifactError: it is absent or damaged.
    """
    remedy = "delete the file, and write it again with `densemble train ... --resume`"
    return read_record(run.state, RunState, remedy)


def read_member(folder: MemberFolder) -> dict[str, Any] | None:
    """Read ``member.json``; ``None`` if it is absent.

    Raises:
        ArtifactError: it is damaged.
    """
    if not folder.record.exists():
        return None
    remedy = "the member is left out; train it again with `densemble train ... --resume`"
    record = read_record(folder.record, MemberState, remedy)
    return read_record(folder.record, TrainedMember, remedy) if record.get("state") == "done" else record


def member_state(folder: MemberFolder) -> str:
    """Return the state in the record of a member; ``left out`` if it has none, ``damaged``, which is logged."""
    try:
        record = read_member(folder)
    except ArtifactError as error:
        warn_once(f"warning: {error}")
        return "damaged"
    return "left out" if record is None else str(record.get("state"))


def read_digests(run: RunFolder) -> dict[str, Any] | None:
    """Read ``data_digests.json``; ``None`` if it is absent.

    Raises:
        ArtifactError: it is damaged.
    """
    remedy = "if the data has not changed since the training, delete the file"
    return read_record(run.digests, DigestsRecord, remedy) if run.digests.is_file() else None


def read_baselines(run: RunFolder) -> dict[str, Any]:
    """Read ``baselines.json``; empty if it is absent or damaged."""
    return optional_record(run.baselines, BaselinesRecord, "the baselines are left out") or {}


def read_ensemble(run: RunFolder) -> dict[str, Any]:
    """Read ``ensemble.json``; empty if it is absent or damaged."""
    return optional_record(run.ensemble, EnsembleRecord, "the ensemble is left out; assemble again") or {}


def read_analysis(run: RunFolder) -> dict[str, Any]:
    """Read ``analysis.json``; empty if it is absent or damaged."""
    return optional_record(run.analysis, AnalysisRecord, "the analysis is left out; assemble again") or {}


def spec_of(record: Mapping[str, Any]) -> DenseSpec:
    """Return the network of a :class:`TrainedMember`."""
    return read_spec(record["spec"])
