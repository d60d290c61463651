"""Soups of trained members as candidates: ``soup-lite0``, one network with the mean weights of several."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from densemble.ensemble.soup import average, greedy_soup
from densemble.nets.dense import DenseModel, DenseSpec
from densemble.nets.local_weights import read_state
from densemble.selection.variants.candidate import Candidate, Source, find_members, find_variants
from densemble.selection.variants.making import (
    is_new,
    predict_validation,
    signed_score,
    skipping,
    snapshots_of,
    write_predicted,
)
from densemble.storage.restore import restore
from densemble.storage.run_records import ConsideredRecord, optional_record
from densemble.storage.runs import RunFolder
from densemble.storage.weight_files import write_tensors
from densemble.storage.writing import require_writable, write_json

log = logging.getLogger(__name__)


def make_soups(source: Source) -> None:
    """Make greedy soups (Wortsman et al. 2022) of trained members with one specification, and of their snapshots.

    Networks are added to the mean, best first, if the held-out score does not get worse. The label is ``soup-MEMBER``
    with the name of the first member. An existing soup is kept, unless new ingredients are available. Snapshots take
    part after :func:`make_snapshots` has scored them. Running statistics are averaged like weights. Heads with
    different initial seeds rarely have a good mean; then no soup is stored, and a message is logged.

    Raises:
        ResourceError: the run folder cannot be written.
    """
    all_members = find_members(source.run, source.config)
    scored = find_variants(source.run, all_members)
    groups: dict[DenseSpec, list[Candidate]] = {}
    for member in all_members.values():
        groups.setdefault(member.spec, []).append(member)
    single = []
    for members in groups.values():
        ingredients = list[Candidate]()
        for member in members:
            labels = [snapshot.name for snapshot in snapshots_of(source.run, member)]
            ingredients += [member, *(scored[label] for label in labels if label in scored)]
        if len(ingredients) == 1:
            single.append(members[0].name)
            continue
        label = f"soup-{members[0].name}"
        with skipping(label):
            _discard_outdated(source.run, label, ingredients)
            if is_new(source, label):
                _make_soup(source, label, members[0], ingredients)
    if single:
        log.info(f"no soup of {', '.join(single)}: no other member or snapshot has the same network")


def _considered_file(run: RunFolder, label: str) -> Path:
    """Return the file with the names of all ingredients that were considered."""
    return run.variant(label).path / "considered.json"


def _discard_outdated(run: RunFolder, label: str, ingredients: Sequence[Candidate]) -> None:
    path = _considered_file(run, label)
    considered = optional_record(path, ConsideredRecord, "the soup is made again")
    if path.is_file() and (considered or {}).get("names") != [ingredient.name for ingredient in ingredients]:
        run.variant(label).record.unlink(missing_ok=True)


def _make_soup(source: Source, label: str, first: Candidate, ingredients: Sequence[Candidate]) -> None:
    def network(indices: Sequence[int]) -> DenseModel:
        states = (read_state(ingredients[index].weights) for index in indices)
        return restore(first.spec, average(states, [1.0] * len(indices)), label)

    def score(indices: Sequence[int]) -> float:
        return signed_score(source.task, predict_validation(source, network(indices), first.name)[1])

    # The recorded scores give the order. The best network is scored again, because its recorded score may come from
    # another machine.
    order = sorted(range(len(ingredients)), key=lambda index: -signed_score(source.task, ingredients[index].val))
    soup = greedy_soup(order, score)
    names = [ingredients[index].name for index in soup.ingredients]
    if len(names) == 1:
        others = ", ".join(ingredient.name for ingredient in ingredients if ingredient.name != names[0])
        log.info(f"{label}: no mean with {others} is as good as {names[0]} alone; no soup is kept")
        return
    folder = source.run.variant(label)
    require_writable(folder.path)
    considered = [ingredient.name for ingredient in ingredients]
    write_json(_considered_file(source.run, label), {"names": considered})
    write_tensors(folder.weights, network(soup.ingredients).state_dict())
    soup_candidate = replace(
        first, name=label, kind="soup", weights=folder.weights, made_from=tuple(names), folder=folder
    )
    write_predicted(source, soup_candidate)
