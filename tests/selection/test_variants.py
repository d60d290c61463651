"""Variants of the members of a small run: stored predictions equal those of their networks."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_run import SMALL_RUN

from densemble.config import RunConfig, make_config
from densemble.data.folder import FolderData
from densemble.engines.local import train_members
from densemble.ensemble.member_views import ViewedMember
from densemble.errors import UsageError
from densemble.evaluation.scores import images_with_targets
from densemble.messages import shown
from densemble.nets.dense import DenseModel, DenseSpec
from densemble.selection.variants import (
    Candidate,
    Source,
    find_candidates,
    make_snapshots,
    make_soups,
    make_views,
)
from densemble.storage.restore import restore
from densemble.storage.runs import RunFolder, read_json
from densemble.tasks import SaliencyTask

VALUES: dict[str, Any] = {
    **SMALL_RUN,
    "members": [
        {"backbone": "squeezenet1_1", "weights": None, "name": "small", "copies": 2, "epochs": 1},
        {"backbone": "resdeconv", "name": "deconv"},
    ],
    "training": {**SMALL_RUN["training"], "epochs": 3, "snapshots": 2, "augment": "none"},
}


class Script(SaliencyTask):
    """A task with given scores, one for each prediction of a split."""

    def __init__(self, scores: list[float]) -> None:
        object.__setattr__(self, "loss_name", "")
        object.__setattr__(self, "left", iter(scores))

    def metrics(self) -> Any:
        script: Any = self
        return Written(next(script.left))


class Written:
    def __init__(self, score: float) -> None:
        self.score = score

    def update(self, *_: Any) -> None:
        pass

    def compute(self) -> dict[str, float]:
        return {"cc": self.score}


@dataclass
class Opened:
    """A run and its data, to make variants."""

    run: RunFolder
    data: FolderData
    lines: list[str]
    config: RunConfig = field(default_factory=lambda: make_config(VALUES))
    task: SaliencyTask | None = None

    @property
    def source(self) -> Source:
        return Source(self.run, self.config, self.task or self.data.task, self.data, {})

    def record(self, name: str) -> dict[str, Any]:
        return read_json(self.folder(name) / "member.json")

    def folder(self, name: str) -> Path:
        return self.run.member(self.config.member_names().index(name), name).path

    def variants(self) -> dict[str, Candidate]:
        return {one.name: one for one in find_candidates(self.run, self.config) if one.kind != "member"}

    def network(self, member: str, weights: Path) -> DenseModel:
        spec = DenseSpec.from_dict(self.record(member)["spec"])
        return restore(spec, load_file(weights), member)

    def set_score(self, name: str, score: float) -> None:
        record = self.record(name)
        record["val"]["cc"] = score
        (self.folder(name) / "member.json").write_text(json.dumps(record))


@pytest.fixture(scope="module")
def trained(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("variants") / "run"
    outcomes = train_members(FolderData(scenes, "saliency"), make_config(VALUES), out)
    assert [(outcome.name, outcome.state) for outcome in outcomes] == [
        ("small", "done"), ("small-2", "done"), ("deconv", "done"),
    ]  # fmt: skip
    return out


@pytest.fixture
def opened(trained: Path, scenes: Path, tmp_path: Path) -> Iterator[Opened]:
    shutil.copytree(trained, tmp_path / "run")
    lines: list[str] = []
    with shown(lines.append):
        yield Opened(RunFolder(tmp_path / "run"), FolderData(scenes, "saliency"), lines)


@torch.no_grad()
def require_predictions_of(network: torch.nn.Module, variant: Candidate, opened: Opened) -> None:
    maps = np.load(variant.predictions)
    assert maps.dtype == np.float16 and maps.shape == (8, 1, 12, 16)
    for kept, (images, _, _) in zip(maps, images_with_targets(opened.data, "val"), strict=True):
        expected = torch.sigmoid(network.eval()(images))[0]
        torch.testing.assert_close(torch.from_numpy(kept).float(), expected, atol=2e-3, rtol=0)


def stamps(run: RunFolder) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in run.variants.rglob("*") if path.is_file()}


def test_views_of_members(opened: Opened) -> None:
    make_views(opened.source, ["hflip", "scale125"])
    variants = opened.variants()
    assert set(variants) == {f"{m}@{v}" for m in ("small", "small-2", "deconv") for v in ("hflip", "scale125")}
    for label, variant in variants.items():
        assert variant.name == label == f"{variant.of}@{variant.view}" and variant.kind == "view"
        assert variant.weights == opened.folder(variant.of) / "weights.safetensors"
        assert variant.made_from == (variant.of,) and {"cc", "kld"} <= set(variant.val)
    view = variants["deconv@hflip"]
    require_predictions_of(ViewedMember(opened.network("deconv", view.weights), "hflip"), view, opened)


def test_existing_variants_are_kept_and_incomplete_ones_made_again(opened: Opened) -> None:
    make_views(opened.source, ["vflip"])
    before = stamps(opened.run)
    half = opened.run.variant("deconv@vflip")
    half.record.unlink()
    half.predictions.write_bytes(b"half")
    assert "deconv@vflip" not in opened.variants()
    make_views(opened.source, ["vflip"])
    assert set(opened.variants()) == {"small@vflip", "small-2@vflip", "deconv@vflip"}
    after = stamps(opened.run)
    assert {path for path in before if after[path] != before[path]} == {half.record, half.predictions}
    assert np.load(half.predictions).shape == (8, 1, 12, 16)


def test_a_failed_variant_does_not_stop_the_others(opened: Opened) -> None:
    (opened.folder("small") / "weights.safetensors").write_bytes(b"damaged")
    make_views(opened.source, ["hflip"])
    assert set(opened.variants()) == {"small-2@hflip", "deconv@hflip"}
    assert any(line.startswith("small@hflip: left out: cannot read weights") for line in opened.lines)
    with pytest.raises(UsageError, match="did you mean 'hflip'"):
        make_views(opened.source, ["hflop"])


def test_a_damaged_variant_is_left_out_with_a_warning(opened: Opened, lines: list[str]) -> None:
    make_views(opened.source, ["hflip"])
    opened.run.variant("deconv@hflip").record.write_text("{}")
    lines.clear()
    assert "deconv@hflip" not in opened.variants()
    (line,) = lines
    assert re.search(r"deconv@hflip.variant.json' is damaged.*variant 'deconv@hflip' is left out; delete", line)


def test_snapshots_are_the_stored_epochs_except_the_best(opened: Opened) -> None:
    make_snapshots(opened.source)
    variants, best = opened.variants(), opened.record("deconv")["best_epoch"]
    assert set(variants) == {f"deconv-epoch{epoch}" for epoch in (2, 3) if epoch != best}
    for variant in variants.values():
        assert (variant.kind, variant.of, variant.view, variant.made_from) == (
            "snapshot",
            "deconv",
            None,
            (variant.name,),
        )
        require_predictions_of(opened.network("deconv", variant.weights), variant, opened)


def test_missing_snapshots_are_logged(opened: Opened) -> None:
    shutil.rmtree(opened.folder("deconv") / "snapshots")
    make_snapshots(opened.source)
    assert opened.variants() == {} and "training.snapshots" in opened.lines[-1]


def test_a_soup_is_the_mean_of_its_ingredients(opened: Opened) -> None:
    opened.set_score("small", 0.2)
    opened.set_score("small-2", 0.3)
    opened.task = Script([0.3, 0.4, 0.4])  # small-2 alone, the mean, the soup
    make_soups(opened.source)
    assert "no soup of deconv: no other member or snapshot has the same network" in opened.lines
    (soup,) = opened.variants().values()
    assert (soup.name, soup.kind, soup.of, soup.view) == ("soup-small", "soup", "small", None)
    assert soup.made_from == ("small-2", "small") and soup.val == {"cc": 0.4}
    states = [load_file(opened.folder(name) / "weights.safetensors") for name in soup.made_from]
    for key, tensor in load_file(soup.weights).items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, (states[0][key] + states[1][key]) / 2, atol=1e-6, rtol=1e-6)
    require_predictions_of(opened.network("small", soup.weights), soup, opened)


def test_no_soup_is_stored_if_no_mean_is_as_good(opened: Opened) -> None:
    opened.set_score("small", 2.0)
    opened.task = Script([0.5, 0.4])
    make_soups(opened.source)
    assert opened.variants() == {}
    assert "soup-small: no mean with small-2 is as good as small alone; no soup is kept" in opened.lines


def test_a_soup_of_equal_networks_equals_the_network(opened: Opened) -> None:
    one, two = opened.folder("small"), opened.folder("small-2")
    shutil.copy(one / "weights.safetensors", two / "weights.safetensors")
    opened.set_score("small-2", opened.record("small")["val"]["cc"])
    make_soups(opened.source)
    (soup,) = opened.variants().values()
    state = load_file(one / "weights.safetensors")
    assert all(torch.equal(tensor, state[key]) for key, tensor in load_file(soup.weights).items())
    assert soup.val["cc"] == pytest.approx(opened.record("small")["val"]["cc"], abs=1e-4)


def test_a_soup_is_made_again_with_new_ingredients(opened: Opened) -> None:
    shutil.rmtree(opened.folder("deconv") / "snapshots")
    opened.task = Script([0.3, 0.4, 0.4])
    make_soups(opened.source)
    before = stamps(opened.run)
    make_soups(opened.source)
    assert stamps(opened.run) == before and "soup-small: already there, kept" in opened.lines
    folder = opened.folder("small-2") / "snapshots"
    shutil.copy(opened.folder("small-2") / "weights.safetensors", folder / "7.safetensors")
    opened.task = Script([0.1, 0.3, 0.4, 0.5, 0.5])  # the snapshot, one alone, two, three, the soup
    make_snapshots(opened.source)
    make_soups(opened.source)
    (soup,) = (variant for variant in opened.variants().values() if variant.kind == "soup")
    assert set(soup.made_from) == {"small", "small-2", "small-2-epoch7"} and soup.val == {"cc": 0.5}


def test_a_member_with_the_name_of_a_variant_is_logged(opened: Opened) -> None:
    members = [*VALUES["members"][:1], {"backbone": "resdeconv", "name": "soup-small"}]
    shutil.move(opened.folder("deconv"), opened.run.member(2, "soup-small").path)
    opened.config = make_config({**VALUES, "members": members})
    make_soups(opened.source)
    assert any("soup-small: left out: a member has that name" in line for line in opened.lines)
    assert not opened.run.variants.exists()
