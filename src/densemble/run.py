"""Run and train: the Python API of run folders."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from densemble.config import RunConfig, make_config, read_config
from densemble.data.digests import changes, pair_digests
from densemble.data.folder import FolderData
from densemble.data.heat_scale import told
from densemble.data.torch_dataset import TorchData, store_dataset
from densemble.engines.budget import Budget, parse_time
from densemble.engines.configure import resolve_data, user_functions
from densemble.engines.isolation.calls import prepare
from densemble.engines.leftovers import remove_leftovers
from densemble.ensemble.combine.user_rule import Combine
from densemble.ensemble.ensemble import Ensemble
from densemble.errors import ArtifactError
from densemble.evaluation.scores import Scores
from densemble.messages import shown
from densemble.progress.display import shown_progress
from densemble.progress.phases import set_limit
from densemble.report.run_html import run_html
from densemble.selection.assemble import assemble
from densemble.selection.baseline_filter import warn_about_baselines
from densemble.selection.options import Options
from densemble.selection.variants import (
    Source,
    find_candidates,
    find_members,
    make_snapshots,
    make_soups,
    make_views,
)
from densemble.storage.artifact import save
from densemble.storage.csv_cells import csv_cell
from densemble.storage.folder_lock import folder_lock
from densemble.storage.run_records import read_analysis, read_baselines, read_digests, read_ensemble, read_state
from densemble.storage.runs import RunFolder, require_new
from densemble.storage.writing import write_text
from densemble.tasks import Task, make_task
from densemble.user_code import importable_name, require_allowed

if TYPE_CHECKING:
    import pandas as pd

    from densemble.training.user_callbacks import LightningCallback

log = logging.getLogger(__name__)
FEW_IMAGES = 30
"""Number of validation images below which intervals are too wide to compare members."""


class Run:
    """A run folder, opened for reading and assembly.

    Args:
        path: run folder, written by ``densemble train -o``.
        data: current data folder; default: its path during training.
        functions: names ``package.module:NAME`` that may be imported and called, for members whose backbone or head is
            code of the user. No other code is called because of a run folder.

    Raises:
        ArtifactError: ``path`` is no run folder, or a damaged one.
    """

    def __init__(self, path: str | Path, data: str | Path | None = None, functions: Sequence[str] = ()) -> None:
        self.folder = RunFolder(Path(path))
        if not self.folder.config.is_file() or not self.folder.state.is_file():
            remedy = f"make one with `densemble train DATA --task TASK -o {path}`"
            raise ArtifactError(f"'{path}' is no run folder; {remedy}")
        self.config: RunConfig = make_config(read_config(self.folder.config), str(self.folder.config))
        self._state = read_state(self.folder)
        stored = Path(self._state["data"])  # a torch data set is stored in the run, which may have moved
        moved = self.folder.data if self.folder.data.is_dir() and not stored.exists() else stored
        self.data_path = Path(data or moved)
        self.functions = tuple(functions)
        self.task: Task = make_task(self._state["task"])

    def _repr_html_(self) -> str:
        """Return the leaderboard and a link to the report as HTML, for notebooks."""
        return run_html(self)

    def trained(self) -> dict[str, dict[str, Any]]:
        """Return the records of the trained members, by name."""
        return {name: member.record for name, member in find_members(self.folder, self.config).items()}

    def _require_functions(self) -> None:
        """Check the members' backbones and heads before any network is built.

        Raises:
            ArtifactError: one of them is user code that is not in ``functions``.
        """
        specs = {name: record["spec"] for name, record in self.trained().items()}
        parts = [(f"member '{name}'", spec[part]) for name, spec in specs.items() for part in ("backbone", "head")]
        require_allowed(f"run '{self.folder.path}'", parts, self.functions)

    def baselines(self) -> dict[str, Scores]:
        """Return held-out scores of baselines without training, such as the mean of the training targets."""
        return read_baselines(self.folder)

    def leaderboard(self) -> "pd.DataFrame":
        """Return the validation scores, best first: members, variants, baselines, and the last assembled ensemble.

        The ensemble is scored on all validation images, on which it was fitted, with the same result as ``evaluate``.
        Its row ``cross-fitted`` has scores on images that played no part in fitting it. The best epoch of each member
        was selected on all validation images.

        Raises:
            ArtifactError: no member is trained yet.
        """
        import pandas as pd

        self._require_trained()
        candidates = find_candidates(self.folder, self.config)
        rows = [
            {"name": c.name, **_scalars(c.val), "parameters": c.record["parameters"],
             **({"epochs": c.record["epochs"], "seconds": c.record["seconds"]} if c.kind == "member" else {})}
            for c in candidates
        ]  # fmt: skip
        if ensemble := read_ensemble(self.folder):
            rule = "" if ensemble["combine"] == "mean" else f", {ensemble['combine']}"
            name = f"ensemble ({ensemble['select']}{rule})"
            used = [c for c in candidates if ensemble["weights"].get(c.name, 0) > 0]
            parameters = sum({c.weights: c.record["parameters"] for c in used}.values())  # candidates may share a file
            rows.append({"name": name, **_scalars(ensemble["val"]), "parameters": parameters})
            if cross_fitted := ensemble.get("cross_fitted"):
                scores = _scalars(cross_fitted["scores"])
                rows.append({"name": f"{name}, cross-fitted", **scores, "parameters": parameters})
        rows += [{"name": f"baseline ({name})", **_scalars(scores)} for name, scores in self.baselines().items()]
        table = pd.DataFrame(rows).set_index("name")
        return table.sort_values(self.task.primary, ascending=not self.task.higher_is_better)

    def cross_fitted(self) -> list[str]:
        """Return the cross-fitted score and gain of the last assembly as lines of text; empty without an assembly."""
        analysis = self.analysis()
        result = analysis.get("cross_fitted")
        if not result or result["score"]["value"] is None:
            return []
        score, gain = result["score"], result["gain"]
        parts = ", ".join(f"{name} {gain[name]['value']:+.4f}" for name in ("selection", "calibration"))
        total, images = gain["total"], analysis.get("pictures", FEW_IMAGES)
        name = f" ({result['best_member']})" if "best_member" in result else ""
        few = [f"only {images} validation images: these numbers are rough"] if images < FEW_IMAGES else []
        return [
            f"cross-fitted ({result['folds']}): {analysis['metric']} {score['value']:.4f} "
            f"({score['low']:.4f} to {score['high']:.4f})",
            f"gain over the best member{name}: {total['value']:+.4f} ({total['low']:+.4f} to {total['high']:+.4f}); "
            f"of it {parts}",
            *few,
        ]

    def analysis(self) -> dict[str, Any]:
        """Return the analysis of the last assembly as plain values; empty before the first assembly.

        It holds cross-fitted scores of the ensemble, of selection strategies and of combination rules, and describes
        members, errors and calibration.
        """
        return read_analysis(self.folder)

    def assemble(
        self,
        select: str = "greedy",
        combine: str | Combine = "mean",
        weights: Sequence[float] | None = None,
        report: Callable[[str], None] | None = None,
        *,
        metric: str | None = None,
        budget: float | None = None,
        calibrate: str = "auto",
        guarantee: str = "none",
        level: float = 0.1,
        confidence: float = 0.95,
        min_members: int = 1,
        seed: int = 0,
    ) -> Ensemble:
        """Select members by their validation predictions and build the ensemble.

        Writes ``ensemble.json``, ``analysis.json``, ``leaderboard.csv`` and ``report.html`` into the run.

        Args:
            select: ``greedy`` (Caruana et al. 2004), ``all``, ``best``, ``exhaustive``, or names joined by commas.
            combine: row of ``COMBINE``; ``auto`` for the best rule with a significant gain over the mean on images
                that it was not fitted on; or a function of ``(maps, weights)``, itself or as ``package.module:NAME``.
            weights: one per member if ``select`` is ``all`` or names; default equal.
            report: called with each line that the loggers ``densemble.*`` write.
            metric: metric that selection maximizes or minimizes; default the task's primary metric.
            budget: time limit of the selected members together, in milliseconds per image on this machine.
            calibrate: ``auto``, ``none``, ``temperature``, ``vector``, or ``variance`` for values.
            guarantee: ``none``, ``set``, ``interval`` or ``risk``. It is fitted on half of the validation images, in
                alternating blocks; nothing else is fitted on that half.
            level: error rate that the guarantee allows, 0.1 for 10 %.
            confidence: confidence of a ``risk`` guarantee.
            min_members: fewest usable members; missing or damaged members are dropped.
            seed: seed of the intervals, and of the subsample of images for selection if there are more than 500.

        Returns:
            An :class:`Ensemble` whose ``metrics`` are its scores on the validation split. They are optimistic, because
            it was fitted there; :meth:`cross_fitted` and ``analysis.json`` have scores on images that played no part.

        Raises:
            UsageError: a member that is absent or not trained, or options that contradict each other or the task.
            ArtifactError: fewer than ``min_members`` usable members, or a backbone function not in ``functions``.
        """
        self._require_trained()
        weights = None if weights is None else tuple(float(weight) for weight in weights)
        combine = importable_name(combine, "combine")
        options = Options(
            select, combine, weights, metric, budget, calibrate, guarantee, level, confidence, min_members, seed=seed
        )
        options.require(self.task)
        self._require_functions()
        options.require_images(len(self._state["val"]) // 2)
        source = self._source()
        with folder_lock(self.folder.path), shown(report), shown_progress(lines=False):
            ensemble = assemble(source, options)
            table = self.leaderboard().rename(index=csv_cell, columns=csv_cell)
            write_text(self.folder.leaderboard, table.to_csv())
        return ensemble

    def add_views(self, views: Sequence[str], report: Callable[[str], None] | None = None) -> None:
        """Add test-time augmentation views of every member as candidates.

        Args:
            views: rows of ``VIEWS``, or ``scaleN``.
            report: called with each line that the loggers ``densemble.*`` write.

        Raises:
            UsageError: no such view.
            ArtifactError: a backbone is a function that is not in ``functions``.
        """
        with folder_lock(self.folder.path), shown(report), shown_progress(lines=False):
            make_views(self._source(), views)

    def add_snapshots(self, report: Callable[[str], None] | None = None) -> None:
        """Add the snapshots saved by ``training.snapshots`` as candidates.

        Raises:
            ArtifactError: a backbone is a function that is not in ``functions``.
        """
        with folder_lock(self.folder.path), shown(report), shown_progress(lines=False):
            make_snapshots(self._source())

    def add_soups(self, report: Callable[[str], None] | None = None) -> None:
        """Add greedy soups as candidates: each averages the weights of members with the same architecture.

        Raises:
            ArtifactError: a backbone is a function that is not in ``functions``.
        """
        with folder_lock(self.folder.path), shown(report), shown_progress(lines=False):
            make_soups(self._source())

    def _require_trained(self) -> None:
        if not self.trained():
            raise ArtifactError(
                f"no member of '{self.folder.path}' is trained yet; continue with `densemble train ... --resume`"
            )

    def _source(self) -> Source:
        self._require_functions()
        return Source(self.folder, self.config, self.task, self.open_data(), self.baselines())

    def open_data(self) -> FolderData:
        """Open the data that the members were trained on.

        Raises:
            DataError: the data cannot be read.
            ArtifactError: the validation images or targets have changed since the training.
        """
        options = self.config.data
        if options["classes"] is None and self.task.describe().get("classes"):
            options = {**options, "classes": self.task.describe()["classes"]}
        data = FolderData(self.data_path, self.config.task, **options)
        if [sample.stem for sample in data.val] != self._state["val"]:
            raise ArtifactError(
                f"the validation images of '{self.data_path}' are not those of the training; the stored predictions "
                "belong to the old ones: put them back or train again"
            )
        if (digests := read_digests(self.folder)) is not None:
            differences = changes({"val": digests.get("val", {})}, {"val": pair_digests(data.val)})
            if differences:
                raise ArtifactError(
                    f"the data in '{self.data_path}' is not what '{self.folder.path}' was scored on: {differences[0]}; "
                    "the stored predictions belong to the old files: put them back, or train again with "
                    "`densemble train ... --resume --retrain`"
                )
        return data


def _scalars(scores: Scores) -> dict[str, float]:
    return {key: value for key, value in scores.items() if isinstance(value, int | float)}


def train(
    data: FolderData | TorchData | str | Path,
    members: Sequence[str | Mapping[str, Any]] | None = None,
    out: str | Path = "runs/run",
    task: str | None = None,
    time: str | float | None = None,
    resume: bool = False,
    report: Callable[[str], None] | None = print,
    retrain: bool = False,
    callbacks: "Sequence[LightningCallback]" = (),
    **settings: Any,
) -> Run:
    """Train members one by one, assemble them, and return the run.

    Args:
        data: a :class:`FolderData`; or the path of one together with ``task``; or a torch data set of (image, target),
            or a dict of such data sets by split, whose pairs are first written to ``out/data``, see
            :func:`store_dataset`. The FolderData has the options for splitting and reading the data.
        members: backbone names, or mappings with the keys of a member in run.yaml; default the seven networks of
            examples/all7models.
        out: run folder.
        task: row of ``TASKS``; required if ``data`` is a path.
        time: limit for everything from this call to the saved ensemble, in seconds or as text such as ``"30m"``.
            Members that do not fit into it are left out.
        resume: continue an interrupted run.
        report: called with each line that the loggers ``densemble.*`` write; ``None`` leaves it to their handlers.
        retrain: like ``resume``, but if the data has changed, train all members again instead of raising an error.
        callbacks: Lightning callbacks, used for every member; not stored: pass them again with ``resume``.
        settings: keys of run.yaml, for instance ``preset="fast"``, ``input_size=(240, 320)`` or
            ``training={"epochs": 5}``.

    Raises:
        ConfigError: unknown or wrong settings.
        DataError: unusable images or targets.
        WeightsError: the weights of a member cannot be read or downloaded; nothing is trained.
        PartialError: some members failed; the others are done, and ``Run(out)`` opens them.
        DensembleError: every member failed; the error has the type of the first failure.
    """
    budget, values = Budget(parse_time(time)), dict(settings)
    if not callbacks:
        prepare((values.get("trainer") or {}).get("isolated"))
    if members is not None:
        values["members"] = list(members)
    with shown(report), shown_progress(), folder_lock(Path(out)):
        set_limit(budget)
        if not isinstance(data, FolderData | str | Path):
            require_new(RunFolder(Path(out)), resume or retrain)
            data = store_dataset(data, RunFolder(Path(out)).data, task, replace=retrain)
        folder, config = resolve_data(data, task, values)
        if retrain:
            from densemble.engines.local import forget_changed

            forget_changed(folder, config, Path(out))
        return run_members(folder, config, Path(out), resume or retrain, budget, callbacks)


def run_members(
    data: FolderData,
    config: RunConfig,
    out: Path,
    resume: bool = False,
    budget: Budget | None = None,
    callbacks: "Sequence[LightningCallback]" = (),
) -> Run:
    """Train the members, assemble them by greedy selection, and save ``ensemble.safetensors`` in the run.

    Files that only an unfinished training needs are removed at the end, see :func:`remove_leftovers`.

    Raises:
        PartialError: some members failed; the ensemble of the others is saved.
        DensembleError: every member failed; the error has the type of the first failure.
    """
    from densemble.engines.local import train_members
    from densemble.engines.member import raise_failures, report_left_out
    from densemble.training.user_callbacks import UserCallbacks

    if data.reading.options["heat_max"]:
        log.info(f"maps: {told(data.reading.options['heat_max'])}")
    with folder_lock(out):
        outcomes = train_members(data, config, out, resume, budget, callbacks=UserCallbacks.of(callbacks))
        run = Run(out, data.path, user_functions(config))
        if any(outcome.state in ("done", "kept") for outcome in outcomes):
            ensemble = run.assemble()
            save(ensemble, run.folder.artifact)
            score = ensemble.metrics["val"].get(run.task.primary)
            text = "" if score is None else f": val {run.task.primary} {score:.4f} (fitted on these images)"
            log.info(f"ensemble of {len(ensemble.members)}{text}")
            log.info(f"wrote {run.folder.artifact}")
            for line in run.cross_fitted():
                log.info(line)
            log.info(f"selection and scores explained: {run.folder.report}")
            warn_about_baselines(run.task, run.baselines(), ensemble.metrics["val"])
            remove_leftovers(run.folder, config)
    if budget is not None and budget.seconds is not None:
        log.info(f"took {budget.used:.0f} s of {budget.seconds:.0f} s")
    report_left_out(outcomes, data.path, out, user_functions(config))
    raise_failures(outcomes)
    return run
