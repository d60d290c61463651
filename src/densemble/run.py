"""Run: what a run folder holds, as a table and as an ensemble."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from densemble.config import RunConfig, make_config, read_config
from densemble.data.folder import FolderData
from densemble.data.targets import resize_target
from densemble.ensemble.calibrate import fit_temperature
from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.resize import resize_maps
from densemble.ensemble.select import greedy
from densemble.errors import ArtifactError, UsageError
from densemble.evaluation import Scores, score_mixture
from densemble.nets.dense import DenseSpec
from densemble.nets.weights import read_state
from densemble.storage.artifact import restore
from densemble.storage.runs import MemberFolder, RunFolder, read_json, write_json, write_text
from densemble.tasks import Task, make_task

if TYPE_CHECKING:
    import pandas as pd


SELECTION_ROUNDS = 30
CALIBRATED = ("labels", "masks")
"""Kinds of maps whose predictions are probabilities of something that was observed."""
CALIBRATION_PIXELS = 2000


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

    def baselines(self) -> dict[str, Scores]:
        """Held-out scores of predictions that need no training, such as the mean of the training maps."""
        return read_json(self.folder.baselines) if self.folder.baselines.is_file() else {}

    def leaderboard(self) -> "pd.DataFrame":
        """Held-out scores, best first: one row per member and baseline, and one for the last assembled ensemble.

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
        rows += [{"name": f"baseline ({name})", **_plain(scores)} for name, scores in self.baselines().items()]
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
        temperature = self._temperature(maps, shares, data)
        if temperature != 1:
            report(f"calibrated: temperature {temperature:.2f}")
        scores = self._score(maps, shares, data, temperature)
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
            temperatures=dict.fromkeys(chosen, temperature),
            reading=data.said,
        )  # fmt: skip
        write_json(
            self.folder.ensemble,
            {"select": select, "combine": combine, "weights": dict(zip(names, shares, strict=True)),
             "temperature": temperature, "val": scores},
        )  # fmt: skip
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
            size = (int(maps[0].shape[-2]), int(maps[0].shape[-1]))
            targets = [(resize_target(target, size, data.kind), None) for target, _ in self._targets(data)]
            sign = 1.0 if self.task.higher_is_better else -1.0
            able = self._better_than_nothing(names)

            def spread(shares: Sequence[float]) -> list[float]:
                own = dict(zip(able, shares, strict=True))
                return [own.get(name, 0.0) for name in names]

            def score(shares: Sequence[float]) -> float:
                return sign * _primary(score_mixture(maps, shares, self.task, targets), self.task)

            chosen = greedy(len(able), lambda shares: score(spread(shares)), SELECTION_ROUNDS)
            return spread(chosen.weights)
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

    def _better_than_nothing(self, names: list[str]) -> list[str]:
        """Members that beat every baseline; all of them where none does.

        A network that learned nothing gives even probabilities: mixed in, it hides how sure the others are, and
        labels, which are all that mIoU sees, do not change.
        """
        sign = 1.0 if self.task.higher_is_better else -1.0
        records = self.trained()
        least = max((sign * _primary(scores, self.task) for scores in self.baselines().values()), default=-np.inf)
        return [n for n in names if sign * _primary(records[n]["val"], self.task) > least] or names

    def _targets(self, data: FolderData) -> Iterator[tuple[Tensor, Tensor | None]]:
        for sample in data.val:
            _, target = data.read_pair(sample)
            points = data.read_points(sample)
            wanted = torch.from_numpy(np.ascontiguousarray(target))
            yield wanted, None if points is None else torch.from_numpy(points)

    def _score(
        self, maps: list[np.ndarray[Any, Any]], shares: list[float], data: FolderData, temperature: float
    ) -> Scores:
        return score_mixture(maps, shares, self.task, self._targets(data), temperature)

    def _temperature(self, maps: list[np.ndarray[Any, Any]], shares: list[float], data: FolderData) -> float:
        """Fitted on up to 2000 pixels of every validation picture; 1 where values are no probabilities of something."""
        if self.task.target_kind not in CALIBRATED:
            return 1.0
        taken = [(own, share) for own, share in zip(maps, shares, strict=True) if share > 0]
        size = (int(taken[0][0].shape[-2]), int(taken[0][0].shape[-1]))
        random = np.random.default_rng(0)
        pixels: list[list[Tensor]] = [[] for _ in taken]
        truth = []
        for number, (target, _) in enumerate(self._targets(data)):
            wanted = resize_target(target, size, self.task.target_kind).flatten(-2)
            known = wanted != 255 if self.task.distribution == "bernoulli" else wanted < self.task.out_channels
            places = (known if known.ndim == 1 else known.any(0)).nonzero().flatten().numpy()
            places = random.permutation(places)[:CALIBRATION_PIXELS]
            truth.append(wanted[..., places].movedim(-1, 0))
            for own, (predicted, _) in zip(pixels, taken, strict=True):
                one = torch.from_numpy(np.array(predicted[number], np.float32))[None]
                own.append(resize_maps(one, size)[0].flatten(1)[:, places].T)
        if not sum(len(part) for part in truth):
            return 1.0
        members = [torch.cat(parts) for parts in pixels]
        return fit_temperature(members, [share for _, share in taken], torch.cat(truth), self.task.distribution)


def _primary(scores: Scores, task: Task) -> float:
    """The score that is chosen by; the worst where there is none."""
    value = scores.get(task.primary)
    worst = float("-inf") if task.higher_is_better else float("inf")
    return worst if value is None else float(value)


def _plain(scores: Scores) -> dict[str, float]:
    return {key: value for key, value in scores.items() if isinstance(value, int | float)}


def _open_predictions(path: Path) -> np.ndarray[Any, Any]:
    try:
        maps: np.ndarray[Any, Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"cannot read predictions '{path}': {error}; train that member again") from error
    return maps
