"""Run: what a run folder holds, as a table and as an ensemble."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from densemble.config import RunConfig, make_config, read_config
from densemble.data.cache import resize_target
from densemble.data.folder import FolderData
from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.select import greedy
from densemble.errors import ArtifactError, DensembleError, PartialError, UsageError
from densemble.evaluation import Scores, score_mixture
from densemble.nets.dense import DenseSpec
from densemble.nets.weights import read_state
from densemble.storage.artifact import restore
from densemble.storage.runs import MemberFolder, RunFolder, read_json, write_json, write_text
from densemble.tasks import Task, make_task

if TYPE_CHECKING:
    import pandas as pd


class Run:
    """A run folder, read.

    Args:
        path: what ``densemble train -o`` wrote.
        data: where the pictures lie now; default where they lay in training.

    Raises:
        ArtifactError: no run folder, or a damaged one.
    """

    def __init__(self, path: str | Path, data: str | Path | None = None) -> None:
        self.folder = RunFolder(Path(path))
        if not self.folder.config.is_file() or not self.folder.state.is_file():
            raise ArtifactError(
                f"'{path}' is no run folder; make one with `densemble train DATA --task TASK -o {path}`"
            )
        self.config: RunConfig = make_config(read_config(self.folder.config), str(self.folder.config))
        self._state = read_json(self.folder.state)
        self.data_path = Path(data or self._state["data"])
        self.task: Task = make_task(self._state["task"])

    def _members(self) -> dict[str, tuple[MemberFolder, dict[str, Any]]]:
        found = {}
        for number, name in enumerate(self.config.member_names()):
            folder = self.folder.member(number, name)
            if folder.record.is_file():
                record = read_json(folder.record)
                found[name] = (folder, record)
        return found

    def trained(self) -> dict[str, dict[str, Any]]:
        """Records of the members whose training is finished, by name."""
        return {name: record for name, (_, record) in self._members().items() if record.get("state") == "done"}

    def leaderboard(self) -> "pd.DataFrame":
        """Held-out scores, best first: one row per member, and one for the last assembled ensemble.

        Raises:
            ArtifactError: no member is trained yet.
        """
        import pandas as pd

        rows = [
            {"name": name, **_plain(record["val"]), "parameters": record["parameters"], "epochs": record["epochs"],
             "seconds": record["seconds"]}
            for name, record in self.trained().items()
        ]  # fmt: skip
        if not rows:
            raise ArtifactError(
                f"no member of '{self.folder.path}' is trained yet; go on with `densemble train ... --resume`"
            )
        if self.folder.ensemble.is_file():
            chosen = read_json(self.folder.ensemble)
            used = [name for name, weight in chosen["weights"].items() if weight > 0]
            rows.append(
                {"name": f"ensemble ({chosen['select']})", **_plain(chosen["val"]),
                 "parameters": sum(row["parameters"] for row in rows if row["name"] in used)}
            )  # fmt: skip
        table = pd.DataFrame(rows).set_index("name")
        return table.sort_values(self.task.primary, ascending=not self.task.higher_is_better)

    def assemble(
        self,
        select: str = "greedy",
        combine: str = "mean",
        weights: Sequence[float] | None = None,
        report: Callable[[str], None] = lambda line: None,
    ) -> Ensemble:
        """Chooses members by their validation predictions and builds the ensemble.

        Args:
            select: ``greedy`` (Caruana et al. 2004), ``all``, ``best``, or names joined by commas.
            combine: row of ``COMBINE``.
            weights: one per member where names or ``all`` are given; default equal.
            report: called with one line of text at every step.

        Returns:
            An :class:`Ensemble` whose ``metrics`` are its scores on the validation split. Where members were
            chosen by those scores they flatter a little: a test split tells.

        Raises:
            UsageError: a member that is not there or not trained.
            ArtifactError: no member is trained yet, or files are damaged.
        """
        trained = self.trained()
        if not trained:
            raise ArtifactError(
                f"no member of '{self.folder.path}' is trained yet; go on with `densemble train ... --resume`"
            )
        names = list(trained)
        folders = {name: folder for name, (folder, _) in self._members().items()}
        maps = [_open_predictions(folders[name].predictions) for name in names]
        data = self._open_data()
        shares = self._choose(select, names, maps, data, weights)
        report("chosen: " + ", ".join(f"{n} {w:.2f}" for n, w in zip(names, shares, strict=True) if w > 0))
        scores = self._score(maps, shares, data)
        chosen = {name: share for name, share in zip(names, shares, strict=True) if share > 0}
        members = {
            name: restore(
                DenseSpec.from_dict(trained[name]["spec"]), read_state(folders[name].weights), f"member '{name}'"
            )
            for name in chosen
        }
        ensemble = Ensemble(
            members, list(chosen.values()), task=self.task, combine=combine,
            metrics={"val": scores, "members": {name: trained[name]["val"] for name in chosen}},
        )  # fmt: skip
        write_json(
            self.folder.ensemble,
            {"select": select, "combine": combine, "weights": dict(zip(names, shares, strict=True)), "val": scores},
        )
        write_text(self.folder.leaderboard, self.leaderboard().to_csv())
        return ensemble.eval()

    def _open_data(self) -> FolderData:
        options = self.config.data.model_dump()
        if options["classes"] is None and self.task.describe().get("classes"):
            options["classes"] = self.task.describe()["classes"]
        data = FolderData(self.data_path, self.config.task, **options)
        if [sample.stem for sample in data.val] != self._state["val"]:
            raise ArtifactError(
                f"the validation pictures of '{self.data_path}' are not those of the training; the kept predictions "
                "belong to the old ones: put them back or train again"
            )
        return data

    def _choose(
        self, select: str, names: list[str], maps: list[np.ndarray[Any, Any]], data: FolderData,
        weights: Sequence[float] | None,
    ) -> list[float]:  # fmt: skip
        if select == "greedy":
            size = maps[0].shape[-2:]
            targets = [resize_target(data.read_target(sample), size, self.config.task) for sample in data.val]
            sign = 1.0 if self.task.higher_is_better else -1.0

            def score(shares: Sequence[float]) -> float:
                return sign * float(score_mixture(maps, shares, self.task, targets)[self.task.primary])

            return list(greedy(len(names), score).weights)
        if select == "best":
            order = self.leaderboard().index
            best = next(name for name in order if name in names)
            return [float(name == best) for name in names]
        wanted = names if select == "all" else [name.strip() for name in select.split(",") if name.strip()]
        missing = [name for name in wanted if name not in names]
        if missing or not wanted:
            raise UsageError(
                f"no trained member is named '{missing[0] if missing else select}'; there are: {', '.join(names)}; "
                "or select greedy, all, best"
            )
        given = list(weights) if weights is not None else [1.0] * len(wanted)
        if len(given) != len(wanted):
            raise UsageError(f"{len(given)} weights for {len(wanted)} members; give one each")
        total = sum(given)
        return [given[wanted.index(name)] / total if name in wanted else 0.0 for name in names]

    def _score(self, maps: list[np.ndarray[Any, Any]], shares: list[float], data: FolderData) -> Scores:
        targets: list[Tensor] = [torch.from_numpy(data.read_target(sample)) for sample in data.val]
        points = [None if (p := data.read_points(sample)) is None else torch.from_numpy(p) for sample in data.val]
        return score_mixture(maps, shares, self.task, targets, points)


def _plain(scores: Scores) -> dict[str, float]:
    return {key: value for key, value in scores.items() if isinstance(value, int | float)}


def _open_predictions(path: Path) -> np.ndarray[Any, Any]:
    try:
        maps: np.ndarray[Any, Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"cannot read predictions '{path}': {error}; train that member again") from error
    return maps


def train(
    data: FolderData | str | Path,
    members: Sequence[str | Mapping[str, Any]] | None = None,
    out: str | Path = "runs/run",
    task: str | None = None,
    time: str | float | None = None,
    resume: bool = False,
    report: Callable[[str], None] = print,
    **settings: Any,
) -> Run:
    """Trains members one by one and returns the run.

    Args:
        data: a :class:`FolderData`, or the path of one together with ``task``. How pictures are split and maps are read
            is said to the FolderData.
        members: backbone names, or mappings with the keys of a member in run.yaml; default the seven of the story.
        out: run folder.
        task: row of ``TASKS``, where ``data`` is a path.
        time: budget shared among the members: seconds, or ``"30m"``.
        resume: go on with a run that was cut off.
        report: called with one line of text at every step.
        settings: keys of run.yaml, for instance ``input_size=(240, 320)`` or ``training={"epochs": 5}``.

    Raises:
        ConfigError: unknown or wrong settings.
        DataError: pictures or maps that cannot be used.
        PartialError: some members failed; the others are done, and ``Run(out)`` opens them.
        DensembleError: every member failed: the first one's reason.
    """
    from densemble.engines.local import train_members

    values: dict[str, Any] = dict(settings)
    if members is not None:
        values["members"] = list(members)
    if isinstance(data, FolderData):
        if task not in (None, data.task_name):
            raise UsageError(f"task='{task}' contradicts the FolderData's '{data.task_name}'; leave it out of train")
        values |= {"task": data.task_name, "data": data.options}
        folder = data
        config = make_config(values)
    else:
        if task is None:
            raise UsageError("train needs task= where data is a path; for instance task='saliency'")
        config = make_config({"task": task, **values})
        folder = FolderData(data, config.task, **config.data.model_dump())
    outcomes = train_members(folder, config, Path(out), resume, parse_time(time), report)
    raise_failures(outcomes)
    return Run(out)


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


def parse_time(text: str | float | None) -> float | None:
    """``"30m"``, ``"90s"``, ``"2h"`` or a number of seconds -> seconds.

    Raises:
        UsageError: none of these.
    """
    if text is None or isinstance(text, int | float):
        return text
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    number, unit = (text[:-1], text[-1]) if text and text[-1] in units else (text, "s")
    try:
        seconds = float(number) * units[unit]
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UsageError(f"time '{text}' is not a duration; write it as 30m, 90s or 2h")
    return seconds
