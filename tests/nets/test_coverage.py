"""Backbones: the published sweep is complete, and a seeded sample of it holds with real numbers."""

import json
import random
import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torchvision
from sampled import sampled
from sweep_backbones import PAGE, outputs, page, publish, read, sweep

import densemble as de
from densemble.errors import UsageError
from densemble.nets.backbones import OWN
from densemble.storage.coverage import read_coverage

COVERAGE = read_coverage()
LARGEST = 30e6  # parameters: larger ones take minutes on the machines that tests run on
SMALL = sorted(entry["name"] for entry in COVERAGE if entry["ok"] and entry["parameters"] <= LARGEST)
SAMPLE = random.Random(2026).sample(SMALL, 60)
PUBLISHED = random.Random(7).sample(COVERAGE, 3)
QUICK = 1
"""So many of the sample are run with every change; ``make slow`` runs the others."""


@pytest.mark.parametrize("name", sampled(SAMPLE, SAMPLE[:QUICK]))
def test_a_seeded_sample_on_real_numbers(name: str) -> None:
    """The requested size, finite values, and no parameter without influence on the map."""
    assert outputs(name, "cpu", (((97, 131), (48, 64)),)) == ["97x131 -> 48x64"]


def test_every_classifier_of_torchvision_and_1250_of_timm_give_the_requested_size() -> None:
    good = {entry["name"] for entry in COVERAGE if entry["ok"]}
    assert set(torchvision.models.list_models(module=torchvision.models)) <= good
    assert len([name for name in good if name.startswith("timm/")]) >= 1250
    assert set(OWN) <= good
    for entry in COVERAGE:
        assert entry["ok"] or len(entry["reason"]) > 20, entry
        if entry["ok"]:
            assert entry["outputs"] == ["240x320 -> 48x64", "97x131 -> 48x64", "225x301 -> 225x301"], entry["name"]


def test_no_backbone_is_left_out() -> None:
    swept_with = re.search(r"torchvision (\S+), timm (\S+);", PAGE.read_text(encoding="utf-8"))
    assert swept_with is not None
    if swept_with.groups() != (version("torchvision"), version("timm")):
        pytest.skip(f"the sweep was made with torchvision and timm {swept_with.groups()}; others are installed")
    assert {entry["name"] for entry in COVERAGE} == set(de.backbones())


@pytest.mark.parametrize("entry", sampled(PUBLISHED, PUBLISHED[:1]), ids=lambda entry: entry["name"])
def test_published_results_can_be_measured_again(entry: dict[str, Any]) -> None:
    if not entry["ok"]:
        with pytest.raises(UsageError):
            de.cuts(entry["name"], (240, 320))
        return
    result = de.cuts(entry["name"], (240, 320))
    assert len(result) == entry["nodes"]
    assert (result[-1].node, result[-1].channels) == (entry["deepest"]["node"], entry["deepest"]["channels"])
    assert (result[-1].macs, result[-1].parameters) == (entry["deepest"]["macs"], entry["deepest"]["parameters"])


def test_the_command_prints_it(densemble: Callable[..., Any]) -> None:
    done = densemble("backbones", "squeezenet*", "--json")
    said = json.loads(done.stdout)
    assert done.returncode == 0 and said["backbones"] == ["squeezenet1_0", "squeezenet1_1"]
    (_, entry) = said["coverage"]
    assert {"nodes", "parameters", "macs", "cuts", "outputs", "sizes"} <= set(entry)
    cut = entry["cuts"]["1/16"]
    assert cut["node"] == "features" and cut["parameters"] < entry["parameters"] and cut["macs"] < entry["macs"]


def test_a_part_of_a_name_is_enough(densemble: Callable[..., Any]) -> None:
    said = densemble("backbones", "efficientnet_lite4").stdout.split()
    assert said == ["timm/efficientnet_lite4", "timm/tf_efficientnet_lite4"]
    refused = densemble("backbones", "nosuchnet")
    assert refused.returncode == 2 and "no backbone matches 'nosuchnet'" in refused.stderr


def test_a_sweep_is_sharded_and_resumes(tmp_path: Path) -> None:
    names = ["alexnet", "resdeconv", "squeezenet1_1"]
    sweep(tmp_path, names, (0, 2), "meta")
    assert [entry["name"] for entry in read(tmp_path)] == ["alexnet", "squeezenet1_1"]
    first = tmp_path / "shard-0-of-2.jsonl"
    whole, cut_off = first.read_text().splitlines(keepends=True)
    first.write_text(whole + cut_off[: len(cut_off) // 2])  # killed in the middle of a line
    sweep(tmp_path, names, (1, 2), "meta")
    assert [entry["name"] for entry in read(tmp_path)] == ["alexnet", "resdeconv"]
    sweep(tmp_path, names, (0, 2), "meta")
    assert [entry["name"] for entry in read(tmp_path)] == names
    with pytest.raises(SystemExit, match="backbones are not swept yet"):
        publish(tmp_path)


def test_the_page_names_networks_that_cannot_be_cut() -> None:
    text = page([*COVERAGE[:3], {"name": "timm/odd", "ok": False, "reason": "it branches on values"}])
    assert "- `timm/odd`: it branches on values" in text
    assert "3 of 4 backbones can be cut" in text
    assert "\n| any size | 3 | 3 | 3 | 3 |\n" in text
