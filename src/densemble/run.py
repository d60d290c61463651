"""Run and train: the Python API over a run folder."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from densemble.config import RunConfig, make_config, read_config
from densemble.data.digests import changes, pair_digests
from densemble.data.folder import FolderData
from densemble.data.heat_scale import told
from densemble.engines.budget import Budget, parse_time
from densemble.engines.configure import open_given
from densemble.engines.leftovers import remove_leftovers
from densemble.ensemble.ensemble import Ensemble
from densemble.errors import ArtifactError, DensembleError, PartialError
from densemble.evaluation.scores import Scores
from densemble.messages import shown
from densemble.selection.assemble import assemble
from densemble.selection.options import Options
from densemble.selection.variants import (
    Candidate,
    Source,
    find_candidates,
    find_members,
    make_snapshots,
    make_soups,
    make_views,
)
from densemble.storage.artifact import require_function, save
from densemble.storage.runs import RunFolder, read_json, write_text
from densemble.tasks import Task, make_task

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)


class Run:
    """A run folder, read.

    Args:
        path: what ``densemble train -o`` wrote.
        data: where the images lie now; default where they lay in training.
        functions: names ``package.module:function`` that may be called, for members whose backbone is a function of
            yours; a run folder alone can never have code called.

    Raises:
        ArtifactError: no run folder, or a damaged one.
    """

    def __init__(self, path: str | Path, data: str | Path | None = None, functions: Sequence[str] = ()) -> None:
        self.folder = RunFolder(Path(path))
        if not self.folder.config.is_file() or not self.folder.state.is_file():
            raise ArtifactError(
                f"'{path}' is no run folder; make one with `densemble train DATA --task TASK -o {path}`"
            )
        self.config: RunConfig = make_config(read_config(self.folder.config), str(self.folder.config))
        self._state = read_json(self.folder.state)
        self.data_path = Path(data or self._state["data"])
        self.functions = tuple(functions)
        self.task: Task = make_task(self._state["task"])

    def trained(self) -> dict[str, dict[str, Any]]:
        """Records of the members whose training is finished, by name."""
        return {name: member.record for name, member in find_members(self.folder, self.config).items()}

    def _require_functions(self) -> None:
        """Checks the members' backbones before any network is built.

        Raises:
            ArtifactError: one is code that is not in ``functions``.
        """
        for name, record in self.trained().items():
            require_function(f"run '{self.folder.path}'", name, record["spec"]["backbone"], self.functions)

    def baselines(self) -> dict[str, Scores]:
        """Held-out scores of predictions that need no training, such as the mean of the training maps."""
        return read_json(self.folder.baselines) if self.folder.baselines.is_file() else {}

    def leaderboard(self) -> "pd.DataFrame":
        """Validation scores, best first: members, their variants, baselines, and the last assembled ensemble.

        Scores of the ensemble are of the saved file on all validation images, on which it was fitted, and as
        ``evaluate`` gives them; its row ``cross-fitted`` is of images that played no part in making it. The best epoch
        of each member was chosen on all of them.

        Raises:
            ArtifactError: no member is trained yet.
        """
        import pandas as pd

        candidates = find_candidates(self.folder, self.config)
        rows = [
            {"name": one.name, **_plain(one.val), "parameters": one.record["parameters"],
             **({"epochs": one.record["epochs"], "seconds": one.record["seconds"]} if one.kind == "member" else {})}
            for one in candidates
        ]  # fmt: skip
        if not rows:
            raise ArtifactError(
                f"no member of '{self.folder.path}' is trained yet; go on with `densemble train ... --resume`"
            )
        if self.folder.ensemble.is_file():
            chosen = read_json(self.folder.ensemble)
            label = chosen["select"] if chosen["combine"] == "mean" else f"{chosen['select']}, {chosen['combine']}"
            parameters = sum(_networks(candidates, chosen["weights"]).values())
            rows.append({"name": f"ensemble ({label})", **_plain(chosen["val"]), "parameters": parameters})
            crossed = chosen.get("cross_fitted")
            if crossed:
                name = f"ensemble ({label}), cross-fitted"
                rows.append({"name": name, **_plain(crossed["scores"]), "parameters": parameters})
        rows += [{"name": f"baseline ({name})", **_plain(scores)} for name, scores in self.baselines().items()]
        table = pd.DataFrame(rows).set_index("name")
        return table.sort_values(self.task.primary, ascending=not self.task.higher_is_better)

    def cross_fitted(self) -> list[str]:
        """The cross-fitted score of the last assembly and its gain, as lines of text; empty where there is none."""
        analysis = self.analysis()
        found = analysis.get("cross_fitted")
        if not found or found["score"]["value"] is None:
            return []
        score, parts = found["score"], found["gain"]
        gains = ", ".join(f"{name} {parts[name]['value']:+.4f}" for name in ("selection", "calibration"))
        total = parts["total"]
        return [
            f"cross-fitted ({found['folds']}): {analysis['metric']} {score['value']:.4f} "
            f"({score['low']:.4f} to {score['high']:.4f})",
            f"gain over the best single member: {total['value']:+.4f} ({total['low']:+.4f} to {total['high']:+.4f}); "
            f"of it {gains}",
        ]

    def analysis(self) -> dict[str, Any]:
        """What the last assembly was made of and what it is worth, as plain values: cross-fitted scores of the
        ensemble, of strategies and of rules, members, errors, calibration. Empty before the first assembly."""
        return read_json(self.folder.analysis) if self.folder.analysis.is_file() else {}

    def assemble(
        self,
        select: str = "greedy",
        combine: str = "mean",
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
        """Chooses members by their validation predictions and builds the ensemble.

        ``ensemble.json``, ``analysis.json``, ``leaderboard.csv`` and ``report.html`` are written into the run.

        Args:
            select: ``greedy`` (Caruana et al. 2004), ``all``, ``best``, ``exhaustive``, or names joined by commas.
            combine: row of ``COMBINE``, or ``auto``: the best rule that surely gains over the mean on images that it
                did not learn from.
            weights: one per member where names or ``all`` are given; default equal.
            report: called with each line that the loggers ``densemble.*`` give.
            metric: that is chosen by; default the task's own.
            budget: milliseconds per image that the chosen members may take together on this machine.
            calibrate: ``auto``, ``none``, ``temperature``, ``vector``, or ``variance`` for values.
            guarantee: ``none``, ``set``, ``interval`` or ``risk``, fitted on half of the validation images, in
                alternating blocks, on which nothing else is fitted then.
            level: what the guarantee allows to be missed, 0.1 for 10 %.
            confidence: in a guarantee about risk.
            min_members: how many usable members there must be; those that are missing or damaged are dropped.
            seed: of the intervals, and of the images that are selected on where there are more than 500.

        Returns:
            An :class:`Ensemble` whose ``metrics`` are its scores on the validation split, on which it was fitted. They
            flatter it: :meth:`cross_fitted` and ``analysis.json`` have scores on images that played no part.

        Raises:
            UsageError: a member that is not there or not trained, or options that do not fit.
            ArtifactError: fewer usable members than are needed, or one that is code not in ``functions``.
        """
        if not self.trained():
            raise ArtifactError(
                f"no member of '{self.folder.path}' is trained yet; go on with `densemble train ... --resume`"
            )
        given = None if weights is None else tuple(float(weight) for weight in weights)
        options = Options(
            select, combine, given, metric, budget, calibrate, guarantee, level, confidence, min_members, seed=seed
        )
        options.require(self.task)
        self._require_functions()
        options.require_images(len(self._state["val"]) // 2)
        source = self._source()
        with shown(report):
            ensemble = assemble(source, options)
        write_text(self.folder.leaderboard, self.leaderboard().to_csv())
        return ensemble

    def add_views(self, views: Sequence[str], report: Callable[[str], None] | None = None) -> None:
        """Makes every member seen through each view a candidate of its own (test-time augmentation).

        Args:
            views: rows of ``VIEWS``, or ``scaleN``.
            report: called with each line that the loggers ``densemble.*`` give.

        Raises:
            UsageError: no such view.
            ArtifactError: a member is code that is not in ``functions``.
        """
        with shown(report):
            make_views(self._source(), views)

    def add_snapshots(self, report: Callable[[str], None] | None = None) -> None:
        """Makes the snapshots that trainings left (``training.snapshots``) candidates of their own.

        Raises:
            ArtifactError: a member is code that is not in ``functions``.
        """
        with shown(report):
            make_snapshots(self._source())

    def add_soups(self, report: Callable[[str], None] | None = None) -> None:
        """Makes greedy soups of members of one architecture candidates: one network with averaged weights each.

        Raises:
            ArtifactError: a member is code that is not in ``functions``.
        """
        with shown(report):
            make_soups(self._source())

    def _source(self) -> Source:
        self._require_functions()
        return Source(self.folder, self.config, self.task, self.open_data(), self.baselines())

    def open_data(self) -> FolderData:
        """The images and maps that the members were trained on.

        Raises:
            DataError: they cannot be read.
            ArtifactError: the validation images or maps are others than in training.
        """
        options = self.config.data
        if options["classes"] is None and self.task.describe().get("classes"):
            options = {**options, "classes": self.task.describe()["classes"]}
        data = FolderData(self.data_path, self.config.task, **options)
        if [sample.stem for sample in data.val] != self._state["val"]:
            raise ArtifactError(
                f"the validation images of '{self.data_path}' are not those of the training; the kept predictions "
                "belong to the old ones: put them back or train again"
            )
        if self.folder.digests.is_file():
            trained_on = {"val": read_json(self.folder.digests).get("val", {})}
            found = changes(trained_on, {"val": pair_digests(data.val)})
            if found:
                raise ArtifactError(
                    f"the data in '{self.data_path}' is not what '{self.folder.path}' was scored on: {found[0]}; the "
                    "kept predictions belong to the old files: put them back, or train again with "
                    "`densemble train ... --resume --retrain`"
                )
        return data


def _networks(candidates: Sequence[Candidate], weights: Mapping[str, float]) -> dict[Path, int]:
    """Parameters of each network that runs, by its file: several candidates may look through one."""
    return {one.weights: one.record["parameters"] for one in candidates if weights.get(one.name, 0) > 0}


def _plain(scores: Scores) -> dict[str, float]:
    return {key: value for key, value in scores.items() if isinstance(value, int | float)}


def train(
    data: FolderData | str | Path,
    members: Sequence[str | Mapping[str, Any]] | None = None,
    out: str | Path = "runs/run",
    task: str | None = None,
    time: str | float | None = None,
    resume: bool = False,
    report: Callable[[str], None] | None = print,
    retrain: bool = False,
    **settings: Any,
) -> Run:
    """Trains members one by one, assembles them, and returns the run.

    Args:
        data: a :class:`FolderData`, or the path of one together with ``task``. How images are split and maps are read
            is said to the FolderData.
        members: backbone names, or mappings with the keys of a member in run.yaml; default the seven of the story.
        out: run folder.
        task: row of ``TASKS``, where ``data`` is a path.
        time: limit for everything from this call to the saved ensemble: seconds, or ``"30m"``. Members that it is not
            enough for are left out.
        resume: go on with a run that was cut off.
        report: called with each line that the loggers ``densemble.*`` give; ``None``: only their own handlers.
        retrain: like ``resume``; where the data has changed, all members are trained again instead of refusing.
        settings: keys of run.yaml, for instance ``preset="fast"``, ``input_size=(240, 320)`` or
            ``training={"epochs": 5}``.

    Raises:
        ConfigError: unknown or wrong settings.
        DataError: images or maps that cannot be used.
        PartialError: some members failed; the others are done, and ``Run(out)`` opens them.
        DensembleError: every member failed: the first one's reason.
    """
    budget, values = Budget(parse_time(time)), dict(settings)
    if members is not None:
        values["members"] = list(members)
    folder, config = open_given(data, task, values)
    with shown(report):
        if retrain:
            from densemble.engines.local import forget_changed

            forget_changed(folder, config, Path(out))
        return run_members(folder, config, Path(out), resume or retrain, budget)


def run_members(
    data: FolderData, config: RunConfig, out: Path, resume: bool = False, budget: Budget | None = None
) -> Run:
    """Trains the members and leaves ``ensemble.safetensors`` in the run: greedy selection, calibrated, scored.

    What only an unfinished training needs is removed at the end, see :func:`remove_leftovers`.

    Raises:
        PartialError: some members failed; the ensemble of the others is there.
        DensembleError: every member failed: the first one's reason.
    """
    from densemble.engines.local import train_members

    if data.reading.options["heat_max"]:
        log.info(f"maps: {told(data.reading.options['heat_max'])}")
    outcomes = train_members(data, config, out, resume, budget)
    run = Run(out, data.path, [member.backbone for member in config.members])
    if any(outcome.state in ("done", "kept") for outcome in outcomes):
        ensemble = run.assemble()
        save(ensemble, run.folder.artifact)
        scores = ", ".join(f"{k} {v:.4f}" for k, v in ensemble.metrics["val"].items() if isinstance(v, float))
        log.info(f"ensemble of {len(ensemble.members)}: val, which it was fitted on: {scores}; {run.folder.artifact}")
        for line in run.cross_fitted():
            log.info(line)
        log.info(f"selection and scores explained: {run.folder.report}")
        warn_of_baselines(run, ensemble.metrics["val"])
        remove_leftovers(run.folder, config)
    if budget is not None and budget.seconds is not None:
        log.info(f"took {budget.used:.0f} s of {budget.seconds:.0f} s")
    raise_failures(outcomes)
    return run


def warn_of_baselines(run: Run, scores: Mapping[str, Any]) -> None:
    """Says so where a prediction that needs no training scores as well as the ensemble."""
    name, sign = run.task.primary, 1.0 if run.task.higher_is_better else -1.0
    for baseline, own in run.baselines().items():
        if own.get(name) is not None and scores.get(name) is not None and sign * scores[name] <= sign * own[name]:
            log.warning(
                f"warning: {name} {scores[name]:.4f} is no better than the baseline '{baseline}' ({own[name]:.4f}), "
                "which needs no training: train longer, start from pretrained weights, or look at the data"
            )


def raise_failures(outcomes: Sequence[Any]) -> None:
    """Raises for members that failed.

    Raises:
        PartialError: some did.
        DensembleError: all did: the first one's own error.
    """
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    if not failed:
        return
    reasons = "; ".join(f"{outcome.name}: {outcome.error}" for outcome in failed)
    if len(failed) < len(outcomes):
        raise PartialError(f"{len(failed)} of {len(outcomes)} members failed, the others are done: {reasons}")
    first = failed[0].cause
    kind = type(first) if isinstance(first, DensembleError) else DensembleError
    raise kind(f"every member failed: {reasons}") from first
