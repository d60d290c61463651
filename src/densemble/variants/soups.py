"""Soups of trained members as candidates: ``soup-lite0``, one network that is the mean of several."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from densemble.config import RunConfig
from densemble.data.folder import FolderData
from densemble.ensemble.soup import average, greedy_soup
from densemble.evaluation import Scores
from densemble.nets.dense import DenseModel, DenseSpec
from densemble.nets.weights import read_state
from densemble.storage.artifact import restore
from densemble.storage.runs import RunFolder, read_json, require_writable, write_json
from densemble.storage.weights import write_state
from densemble.tasks import Task
from densemble.variants.making import Making, Report, Trained
from densemble.variants.record import Variant, read_variants


@dataclass(frozen=True)
class Ingredient:
    """Weights that may go into a soup, and their held-out scores."""

    name: str
    weights: Path
    val: Scores


def make_soups(run: RunFolder, config: RunConfig, task: Task, data: FolderData, report: Report) -> None:
    """Greedy soups (Wortsman et al. 2022) of trained members with one specification, and of their snapshots.

    Networks are added to the mean, best first, if its held-out score gets no worse; the label is ``soup-MEMBER``, after
    the first of the members. One that is there already is kept, unless other ingredients have come since. Snapshots
    take part once :func:`make_snapshots` has scored them. Running statistics are averaged like weights. Heads that
    began with different seeds seldom have a good mean: then no soup is kept, with a line of report.

    Raises:
        ResourceError: the run folder cannot be written.
    """
    making = Making(run, config, task, data, report)
    scored = read_variants(run)
    groups: dict[DenseSpec, list[Trained]] = {}
    for member in making.trained:
        groups.setdefault(member.spec, []).append(member)
    alone = []
    for members in groups.values():
        ingredients = list(_ingredients(members, scored))
        if len(ingredients) == 1:
            alone.append(members[0].name)
            continue
        label = f"soup-{members[0].name}"
        with making.skipping(label):
            _forget_other_ingredients(making, label, ingredients)
            if making.is_new(label):
                _cook(making, label, members[0], ingredients)
    if alone:
        report(f"no soup of {', '.join(alone)}: no other member or snapshot has the same network")


def _ingredients(members: Sequence[Trained], scored: dict[str, Variant]) -> Iterator[Ingredient]:
    for member in members:
        yield Ingredient(member.name, member.folder.weights, member.record["val"])
        for label, epoch in member.snapshots().items():
            if label in scored:
                yield Ingredient(label, member.folder.snapshot(epoch), scored[label].val)


def _considered(making: Making, label: str) -> Path:
    """File with the names of all that the soup could have been made of."""
    return making.run.variant(label).path / "considered.json"


def _forget_other_ingredients(making: Making, label: str, ingredients: Sequence[Ingredient]) -> None:
    path = _considered(making, label)
    if path.is_file() and read_json(path).get("names") != [one.name for one in ingredients]:
        making.run.variant(label).record.unlink(missing_ok=True)


def _cook(making: Making, label: str, first: Trained, ingredients: Sequence[Ingredient]) -> None:
    def network(numbers: Sequence[int]) -> DenseModel:
        states = (read_state(ingredients[number].weights) for number in numbers)
        return restore(first.spec, average(states, [1.0] * len(numbers)), label)

    def score(numbers: Sequence[int]) -> float:
        return making.score(making.predict(network(numbers), first)[1])

    # Scores on record say which is best; the best one is scored again, for they may come from another machine.
    order = sorted(range(len(ingredients)), key=lambda number: -making.score(ingredients[number].val))
    soup = greedy_soup(order, score)
    names = [ingredients[number].name for number in soup.ingredients]
    if len(names) == 1:
        others = ", ".join(one.name for one in ingredients if one.name != names[0])
        making.report(f"{label}: no mean with {others} is as good as {names[0]} alone; no soup is kept")
        return
    folder, cooked = making.run.variant(label), network(soup.ingredients)
    require_writable(folder.path)
    write_json(_considered(making, label), {"names": [one.name for one in ingredients]})
    write_state(folder.weights, cooked.state_dict())
    making.keep(label, "soup", first, cooked, folder.weights, names)
