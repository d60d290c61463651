"""Soups of trained members as candidates: ``soup-lite0``, one network that is the mean of several."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from densemble.ensemble.soup import average, greedy_soup
from densemble.nets.dense import DenseModel, DenseSpec
from densemble.nets.local_weights import read_state
from densemble.selection.variants.candidate import Candidate, find_variants
from densemble.selection.variants.making import VariantMaker
from densemble.storage.artifact import restore
from densemble.storage.runs import read_json, require_writable, write_json
from densemble.storage.weight_files import write_state


def make_soups(maker: VariantMaker) -> None:
    """Greedy soups (Wortsman et al. 2022) of trained members with one specification, and of their snapshots.

    Networks are added to the mean, best first, if its held-out score gets no worse; the label is ``soup-MEMBER``, after
    the first of the members. One that is there already is kept, unless other ingredients have come since. Snapshots
    take part once :func:`make_snapshots` has scored them. Running statistics are averaged like weights. Heads that
    began with different seeds seldom have a good mean: then no soup is kept, with a line of report.

    Raises:
        ResourceError: the run folder cannot be written.
    """
    scored = find_variants(maker.run, maker.members)
    groups: dict[DenseSpec, list[Candidate]] = {}
    for member in maker.members.values():
        groups.setdefault(member.spec, []).append(member)
    alone = []
    for members in groups.values():
        ingredients = list(_ingredients(maker, members, scored))
        if len(ingredients) == 1:
            alone.append(members[0].name)
            continue
        label = f"soup-{members[0].name}"
        with maker.skipping(label):
            _discard_outdated(maker, label, ingredients)
            if maker.is_new(label):
                _make_soup(maker, label, members[0], ingredients)
    if alone:
        maker.report(f"no soup of {', '.join(alone)}: no other member or snapshot has the same network")


def _ingredients(
    maker: VariantMaker, members: Sequence[Candidate], scored: Mapping[str, Candidate]
) -> Iterator[Candidate]:
    for member in members:
        yield member
        for snapshot in maker.snapshots(member):
            if snapshot.name in scored:
                yield scored[snapshot.name]


def _considered_file(maker: VariantMaker, label: str) -> Path:
    """File with the names of all that the soup could have been made of."""
    return maker.run.variant(label).path / "considered.json"


def _discard_outdated(maker: VariantMaker, label: str, ingredients: Sequence[Candidate]) -> None:
    path = _considered_file(maker, label)
    if path.is_file() and read_json(path).get("names") != [one.name for one in ingredients]:
        maker.run.variant(label).record.unlink(missing_ok=True)


def _make_soup(maker: VariantMaker, label: str, first: Candidate, ingredients: Sequence[Candidate]) -> None:
    def network(numbers: Sequence[int]) -> DenseModel:
        states = (read_state(ingredients[number].weights) for number in numbers)
        return restore(first.spec, average(states, [1.0] * len(numbers)), label)

    def score(numbers: Sequence[int]) -> float:
        return maker.score(maker.predict(network(numbers), first.name)[1])

    # Scores on record say which is best; the best one is scored again, for they may come from another machine.
    order = sorted(range(len(ingredients)), key=lambda number: -maker.score(ingredients[number].val))
    soup = greedy_soup(order, score)
    names = [ingredients[number].name for number in soup.ingredients]
    if len(names) == 1:
        others = ", ".join(one.name for one in ingredients if one.name != names[0])
        maker.report(f"{label}: no mean with {others} is as good as {names[0]} alone; no soup is kept")
        return
    folder = maker.run.variant(label)
    require_writable(folder.path)
    write_json(_considered_file(maker, label), {"names": [one.name for one in ingredients]})
    write_state(folder.weights, network(soup.ingredients).state_dict())
    maker.keep(replace(first, name=label, kind="soup", weights=folder.weights, made_from=tuple(names), folder=folder))
