"""Schema of run.yaml: the jsonschema package accepts and refuses the same files as the models."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from densemble.cli import app
from densemble.config import RunConfig, make_config
from densemble.errors import ConfigError
from densemble.run_schema import run_schema
from densemble.tasks import TASKS

ROOT = Path(__file__).resolve().parents[1]
WRITTEN = [path for path in (ROOT / "examples").rglob("*.yaml") if "task:" in path.read_text(encoding="utf-8")]
SCHEMA = Draft202012Validator(run_schema())

SETTINGS: dict[str, Any] = {
    "task": "segmentation",
    "input_size": "96x128",
    "out_size": [48, 64],
    "training": {"epochs": 2},
    "data": {"label_map": {255: 1}, "classes": ["a", "b"]},
    "trainer": {"devices": [0, 1]},
    "members": ["resnet18*2", {"backbone": "alexnet", "min_size": "12x16", "epochs": 4, "patience": None}],
}


def changed(*path: str | int, value: Any) -> dict[str, Any]:
    """SETTINGS with one other value."""
    settings = deepcopy(SETTINGS)
    section: Any = settings
    for key in path[:-1]:
        section = section[key]
    section[path[-1]] = value
    return settings


def as_json(settings: dict[str, Any]) -> Any:
    """The settings as an editor sees them: every key of a mapping is text."""
    return json.loads(json.dumps(settings))


def test_the_schema_is_valid() -> None:
    Draft202012Validator.check_schema(run_schema())
    assert run_schema()["properties"]["task"]["enum"] == list(TASKS)


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_examples_match(path: Path) -> None:
    SCHEMA.validate(as_json(yaml.safe_load(path.read_text(encoding="utf-8"))))


@pytest.mark.parametrize("settings", [SETTINGS, {"task": "saliency"}], ids=["all sections", "defaults"])
def test_a_written_run_yaml_matches(settings: dict[str, Any]) -> None:
    SCHEMA.validate(as_json(settings))
    written = yaml.safe_load(make_config(settings).to_yaml())
    SCHEMA.validate(as_json(written))
    assert make_config(written) == make_config(settings)


@pytest.mark.parametrize(
    "settings",
    [
        changed("epochs", value=3),
        changed("training", "epoch", value=3),
        changed("data", "class", value=[]),
        changed("trainer", "gpus", value=1),
        changed("members", 1, "heads", value="fpn"),
        changed("training", "epochs", value=0),
        changed("training", "augment", value="some"),
        changed("input_size", value="96"),
        changed("out_size", value=[48, 64, 3]),
        changed("members", 1, "epochs", value=-1),
        changed("members", 1, "name", value="a b"),
        changed("members", 0, value=5),
        {key: value for key, value in SETTINGS.items() if key != "task"},
    ],
    ids=str,
)
def test_what_the_models_refuse_does_not_match(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        make_config(settings)
    assert not SCHEMA.is_valid(as_json(settings))


def test_an_unknown_task_does_not_match() -> None:
    assert not SCHEMA.is_valid(changed("task", value="saliencies"))  # the models leave this to the task


def test_the_schema_describes_every_key_that_the_models_describe() -> None:
    properties = run_schema()["properties"]
    assert set(properties) == set(RunConfig.model_fields)
    assert properties["loss"]["description"] == RunConfig.model_fields["loss"].description


def test_the_command_writes_the_schema(tmp_path: Path) -> None:
    printed = CliRunner().invoke(app, ["schema"])
    written = CliRunner().invoke(app, ["schema", "-o", str(path := tmp_path / "run.schema.json")])
    assert (printed.exit_code, written.exit_code, written.stdout) == (0, 0, "")
    assert json.loads(printed.stdout) == json.loads(path.read_text(encoding="utf-8")) == run_schema()
