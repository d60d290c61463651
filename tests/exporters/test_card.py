"""Model cards: every figure equals the one that was measured, and what is not known is called not recorded."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from selection.written_runs import Written, write_run
from small_networks import SMALL

import densemble as de
from densemble.commands import share
from densemble.ensemble.cascade import Cascade, Check, Policy
from densemble.ensemble.ensemble import Ensemble
from densemble.errors import UsageError
from densemble.exporters.card import CardOptions, card_text, make_card, write_card
from densemble.exporters.card_facts import CardFacts, card_facts
from densemble.exporters.card_sections import SECTIONS, table
from densemble.exporters.metric_meanings import MEANINGS
from densemble.nets.weight_licences import PublishedWeights, published_weights
from densemble.storage.runs import read_json
from densemble.storage.writing import write_json
from densemble.tasks import TASKS, HeatmapTask, Task, make_task

HUB_TAGS = {"image-segmentation", "depth-estimation", "keypoint-detection", "image-to-image"}
"""Tasks of the hub's list that densemble uses."""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Run of the task segmentation whose last assembly has a guarantee, and the artifact of it in the run."""
    run = write_run(tmp_path_factory.mktemp("run"), "segmentation", images=16)
    record = run.folder("one") / "member.json"
    loaded = "loaded 9/9 tensors from /somewhere/private/weights.safetensors; left at random: x"
    write_json(record, {**read_json(record), "config": {"weights": "DEFAULT"}, "loaded": loaded})
    de.save(run.run.assemble("all", guarantee="set", level=0.2), run.path / "ensemble.safetensors")
    return run


@pytest.fixture(scope="module")
def facts(written: Written) -> CardFacts:
    file = written.path / "ensemble.safetensors"
    return card_facts(file, de.load(file))


def section(card: str, title: str) -> str:
    """Text of a section, without the spaces that align the columns of tables."""
    card = re.sub(r" +", " ", card)
    match = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", card, re.MULTILINE | re.DOTALL)
    assert match is not None, title
    return match[1]


def test_the_figures_are_those_of_the_analysis(written: Written, facts: CardFacts) -> None:
    card = str(make_card(facts, CardOptions("gaze.safetensors")))
    analysis = read_json(written.path / "analysis.json")
    score = analysis["cross_fitted"]["score"]
    shown = section(card, "Scores")
    assert f"| {score['value']:.3f} | {score['low']:.3f} to {score['high']:.3f} |" in shown
    assert f"| {analysis['chosen']['val']['miou']:.3f} |" in shown
    assert f"{analysis['pictures']} validation images" in shown and "all 16 validation images" in shown
    before, after = (analysis["calibration"][side]["ece"] for side in ("before", "after"))
    row = next(line for line in section(card, "Calibration").splitlines() if "expected calibration error" in line)
    assert [float(cell) for cell in row.split("|")[2:4]] == pytest.approx([before, after], abs=6e-4)
    guarantee = section(card, "Guarantee")
    coverage = re.search(r"measured on the other half: ([\d.]+)", guarantee)
    assert coverage is not None and float(coverage[1]) == pytest.approx(analysis["guarantee"]["coverage"], abs=6e-4)
    assert "at least 80 %" in guarantee
    assert "same distribution" in guarantee and f"on {analysis['guarantee']['checked_on']} images" in guarantee
    data = section(card, "Training data")
    assert "16 images in `val`" in data and f"`{written.data.path.name}`" in data
    for name, member in facts.ensemble.named_members():
        count = sum(p.numel() for p in member.parameters())
        assert f"| {name} | `resdeconv` | `{member.spec.node}` | `upsample` | 0.333 | {count:,} |" in section(
            card, "Members"
        )


def test_no_paths_and_no_names_of_images(written: Written, facts: CardFacts) -> None:
    card = str(make_card(facts, CardOptions("gaze.safetensors")))
    stored = json.dumps(facts.ensemble.metrics["assembly"])
    for text in (card, stored):
        assert str(written.data.path) not in text and "/somewhere" not in text and str(written.path) not in text
        assert not any(f'"{sample.stem}"' in text for sample in written.data.val)
    assert "weights.safetensors" in stored


def test_an_artifact_without_figures_takes_them_from_its_run(
    written: Written, facts: CardFacts, tmp_path: Path
) -> None:
    expected = make_card(facts, CardOptions("gaze.safetensors"))
    old = facts.ensemble.with_members(dict(facts.ensemble.named_members()))
    old.metrics = {key: value for key, value in old.metrics.items() if key != "assembly"}
    file = de.save(old, tmp_path / "gaze.safetensors")
    alone = str(make_card(card_facts(file, old), CardOptions("gaze.safetensors")))
    assert "Not recorded" in section(alone, "Training data") and "no scores of images that played no part" in alone
    assert "not recorded | not recorded" in section(alone, "Licences")
    assert "all validation images" in section(alone, "Scores")
    missing = "images that it was not fitted on, the data of its training, the initial weights of its members. Ask its"
    assert missing in alone and "`densemble evaluate gaze.safetensors DATA`" in alone
    assert "Ask its author" not in str(expected)
    assert "cross-fitted" not in alone.partition("---\n\n")[0] and "fitted on these images" in alone
    with_run = make_card(card_facts(file, old, written.path), CardOptions("gaze.safetensors"))
    lines = [str(card).partition("SHA-256")[0] for card in (with_run, expected)]
    assert lines[0] == lines[1]


def test_a_run_with_another_last_assembly_is_refused(written: Written, facts: CardFacts, tmp_path: Path) -> None:
    other = Ensemble(dict(facts.ensemble.named_members()), [3, 1, 1], task=facts.ensemble.task)
    file = de.save(other, tmp_path / "other.safetensors")
    with pytest.raises(UsageError, match="the weights of the members differ"):
        card_facts(file, other, written.path)
    fewer = Ensemble({"one": facts.ensemble.members["one"]}, task=facts.ensemble.task)
    with pytest.raises(UsageError, match="it has the members one, two, three, the artifact one"):
        card_facts(de.save(fewer, tmp_path / "fewer.safetensors"), fewer, written.path)


def test_the_metadata_is_valid(facts: CardFacts) -> None:
    card = make_card(facts, CardOptions("hf://user/gaze", "apache-2.0", ("user/data",)))
    parsed = ModelCard(str(card))
    assert parsed.data.library_name == "densemble" and parsed.data.pipeline_tag == "image-segmentation"
    assert parsed.data.license == "apache-2.0" and parsed.data.datasets == ["user/data"]
    results = {result.metric_type: result for result in parsed.data.eval_results}
    crossed = facts.figures["cross_fitted"]["scores"]
    assert {name: result.metric_value for name, result in results.items()} == {
        name: value for name, value in crossed.items() if value is not None
    }
    assert all("cross-fitted" in result.metric_name for result in results.values())
    plain = yaml.safe_load(str(make_card(facts, CardOptions("x.safetensors"))).split("---\n")[1])
    assert plain["license"] == "other" and {"license_name", "license_link", "tags", "model-index"} <= set(plain)


def small_task(name: str) -> Task:
    classes = {"classes": ["red", "blue"]} if "classes" in TASKS[name].choices() else {}
    return make_task({"name": name, **classes})


@pytest.mark.parametrize("name", TASKS)
def test_every_task_has_a_card(name: str, facts: CardFacts, tmp_path: Path) -> None:
    task = small_task(name)
    options = {"out_size": (12, 16), "input_size": (48, 64), "head": "upsample", "weights": None}
    member = de.DenseModel("timm/test_resnet", out_channels=task.out_channels, **options)
    scores = dict.fromkeys(task.metrics().objectives, 0.5)
    ensemble = Ensemble({"only": member}, task=task, metrics={"val": scores})
    file = de.save(ensemble, tmp_path / "a.safetensors")
    card = str(make_card(card_facts(file, ensemble), CardOptions(file.name)))
    assert task.pipeline_tag in HUB_TAGS and f"pipeline_tag: {task.pipeline_tag}" in card
    assert all(re.search(rf"^## {title}$", card, re.MULTILINE) for title in SECTIONS if title != "Methods")
    assert task.meaning in card
    assert set(scores) <= set(MEANINGS), "every metric is explained"
    assert "nan" not in card.lower().split() and "None" not in card.replace("None was fitted", "")
    assert ModelCard(card).data.library_name == "densemble"


@pytest.mark.parametrize(
    ("backbone", "weights", "expected"),
    [
        ("timm/tf_efficientnet_lite0", "DEFAULT", PublishedWeights("timm/tf_efficientnet_lite0.in1k", "apache-2.0")),
        ("timm/convnextv2_tiny", "fcmae", PublishedWeights("timm/convnextv2_tiny.fcmae", "cc-by-nc-4.0")),
        ("vgg16", "DEFAULT", PublishedWeights("VGG16_Weights.IMAGENET1K_V1")),
        ("vgg16", "absent", None),
        ("timm/resnet50", "absent", None),
        ("resdeconv", "DEFAULT", None),
        (SMALL, "DEFAULT", None),
        ("timm/resnet50", "hf-hub:user/name", None),
    ],
)
def test_licences_are_those_of_the_publishers(backbone: str, weights: str, expected: PublishedWeights | None) -> None:
    assert published_weights(backbone, weights) == expected


@pytest.mark.parametrize(
    ("record", "shown"),
    [
        ({"weights": "DEFAULT", "loaded": "timm/test_resnet DEFAULT"}, "`timm/test_resnet.r160_in1k` | apache-2.0"),
        (
            {"weights": "DEFAULT", "loaded": "timm-test_resnet.safetensors"},
            "`timm/test_resnet.r160_in1k`, read from the file `timm-test_resnet.safetensors` | apache-2.0",
        ),
        ({"weights": None, "loaded": ""}, "random | not applicable"),
        ({"weights": "/a/b/mine.pth", "loaded": "mine.pth"}, "`mine.pth` | not recorded"),
        ({}, "not recorded | not recorded; of the default weights `timm/test_resnet.r160_in1k`: apache-2.0"),
    ],
)
def test_initial_weights_in_the_card(record: dict[str, Any], shown: str, facts: CardFacts) -> None:
    member = de.DenseModel("timm/test_resnet", weights=None, out_size=(12, 16), input_size=(48, 64), head="upsample")
    other = replace(facts, ensemble=Ensemble({"only": member}), figures={"members": {"only": record}})
    assert f"| only | {shown} |" in re.sub(r" +", " ", SECTIONS["Licences"](other, ""))


def test_tables_are_aligned_and_keep_vertical_bars() -> None:
    assert table({"name": ["a|b", "c"], "none": ["", ""], "score": ["1", "0.25"]}).splitlines() == [
        "| name | score |",
        "| ---- | ----- |",
        "| a\\|b | 1     |",
        "| c    | 0.25  |",
    ]


@pytest.mark.parametrize("task", [small_task(name) for name in TASKS] + [HeatmapTask(("cell",), "density")])
def test_every_task_has_a_meaning(task: Task) -> None:
    assert len(task.meaning.split()) > 3 and not task.meaning.endswith(".")


def test_the_cascade_and_its_number_of_images(facts: CardFacts) -> None:
    check = Check("keep", 0.995, 0.61, 0.9934)
    policy = Policy(("one", "two", "three"), "entropy", 0.0, 1.0, 0.5, 1.0, 1.0)
    ensemble = facts.ensemble.with_members(dict(facts.ensemble.named_members()))
    shares = dict.fromkeys(ensemble.members, 1 / 3)
    ensemble.cascade = Cascade("miou", True, 24, 0.5, shares, (policy,), (check,))
    text = card_text(replace(facts, ensemble=ensemble, figures={}), "gaze.safetensors")
    assert "| `--keep 0.995` | 0.61 | 0.9934 |" in section(text, "Cascade")
    assert "one half of 24 validation images" in section(text, "Cascade")
    assert "all validation images (at least 24)" in section(text, "Scores")
    ensemble.cascade = None
    assert "None was fitted" in section(card_text(replace(facts, ensemble=ensemble), "x.safetensors"), "Cascade")


def test_input_and_output_are_those_of_the_ensemble(facts: CardFacts) -> None:
    text = section(card_text(facts, "gaze.safetensors"), "Input and output")
    images = torch.rand(2, 3, 40, 56)
    maps = facts.ensemble(images)
    assert f"`ensemble(x)` returns `(B, {', '.join(map(str, maps.shape[1:]))})`" in text
    assert "takes float `(B, 3, H, W)` in [0, 1], not normalized" in text


def test_without_a_file_the_card_is_printed(
    written: Written, facts: CardFacts, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    file = written.path / "ensemble.safetensors"
    share.card(file)
    printed = capsys.readouterr().out
    assert printed == f"{card_text(facts, str(file))}\n" and printed.startswith("# Segmentation ensemble of 3 members")
    share.card(file, json=True)
    values = json.loads(capsys.readouterr().out)
    assert values["task"]["name"] == "segmentation" and values["assembly"]["images"] == facts.figures["images"]
    assert values["fingerprint"] == facts.fingerprint and list(values["members"]) == ["one", "two", "three"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_command_card(written: Written, densemble: Callable[..., Any], tmp_path: Path) -> None:
    out = tmp_path / "cards" / "README.md"
    done = densemble("card", written.path, "-o", out, "--repository", "user/scenes")
    assert done.returncode == 0 and str(out) in done.stderr and done.stdout == ""
    assert 'de.load("hf://user/scenes")' in out.read_text() and "densemble predict hf://user/scenes" in out.read_text()
    assert densemble("card", tmp_path / "absent.safetensors", "-o", out).returncode == 4
    with pytest.raises(UsageError, match="is a folder"):
        write_card(written.path, tmp_path)


def test_only_a_card_is_replaced(written: Written, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("# My project\n")
    with pytest.raises(UsageError, match="exists and is not a model card"):
        write_card(written.path, readme)
    assert readme.read_text() == "# My project\n"
    readme.unlink()
    write_card(written.path, readme)
    write_card(written.path, readme, repository="user/scenes")
    assert "hf://user/scenes" in readme.read_text()
