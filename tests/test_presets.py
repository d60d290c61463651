"""Presets: sizes that fit, and user settings that override them."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from densemble.config import make_config
from densemble.engines.configure import complete_config
from densemble.errors import ConfigError, UsageError
from densemble.presets import PRESETS, SMALLEST, fill_in, fitting_size, preset_settings
from densemble.tasks import TASKS

SIDES = st.integers(SMALLEST, 6000)


@given(image=st.tuples(SIDES, SIDES), pixels=st.sampled_from([36_000, 80_000, 200_000]))
def test_sizes_are_multiples_of_8_and_no_larger_than_the_image(image: tuple[int, int], pixels: int) -> None:
    size = fitting_size(image, pixels)
    for side, own in zip(size, image, strict=True):
        assert side % 8 == 0 and SMALLEST <= side <= own
    if min(size) > SMALLEST:  # a very long image keeps its shorter side
        assert (size[0] - 4) * (size[1] - 4) <= pixels  # each side is rounded by half of eight at most


@pytest.mark.parametrize(
    ("image", "pixels", "size"),
    [
        ((600, 800), 80_000, (248, 328)),  # 80000 = 244.9 x 326.6
        ((480, 640), 36_000, (168, 216)),  # 36000 = 164.3 x 219.1
        ((101, 47), 80_000, (96, 40)),  # smaller than the budget: cut down to eights, never enlarged
        ((20, 20), 80_000, (32, 32)),
        ((100, 10_000), 36_000, (32, 1896)),
    ],
)
def test_sizes_by_hand(image: tuple[int, int], pixels: int, size: tuple[int, int]) -> None:
    assert fitting_size(image, pixels) == size


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_valid_run(name: str, task: str) -> None:
    settings = preset_settings(name, TASKS[task], (480, 640))
    config = make_config({"task": task, **settings})
    assert config.input_size == tuple(settings["input_size"])
    assert config.training.epochs == PRESETS[name]["training"]["epochs"]


def test_saliency_is_not_augmented_strongly() -> None:
    assert preset_settings("best", TASKS["saliency"], (480, 640))["training"]["augment"] == "light"
    assert preset_settings("best", TASKS["segmentation"], (480, 640))["training"]["augment"] == "strong"
    assert PRESETS["best"]["training"]["augment"] == "strong", "the table itself stays as it is"


def test_a_preset_may_set_the_loss() -> None:
    assert preset_settings("best", TASKS["segmentation"], (480, 640))["loss"] == "cross_entropy+dice"
    assert "loss" not in preset_settings("best", TASKS["depth"], (480, 640))


@pytest.mark.parametrize(
    ("task", "options", "size"),
    [
        ("saliency", {}, (48, 64)),
        ("segmentation", {}, None),
        ("heatmap", {"input_size": "96x128"}, (24, 32)),
        ("heatmap", {"input_size": [3, 2]}, (1, 1)),
        ("saliency", {"out_size": None}, None),
    ],
)
def test_the_task_sets_the_default_out_size(task: str, options: dict[str, Any], size: tuple[int, int] | None) -> None:
    data = SimpleNamespace(task_name=task, kind="heat")
    assert complete_config({"task": task, **options}, data).out_size == size  # type: ignore[arg-type]


def test_densities_need_a_fixed_size() -> None:
    data = SimpleNamespace(task_name="heatmap", kind="density")
    with pytest.raises(ConfigError, match=r"run\.yaml: a density task needs a fixed out_size"):
        complete_config({"task": "heatmap", "out_size": None}, data, "run.yaml")  # type: ignore[arg-type]


def test_unknown_preset() -> None:
    with pytest.raises(UsageError, match="no preset is named 'quick'; there are: fast, balanced, best"):
        preset_settings("quick", TASKS["saliency"], (480, 640))


def test_settings_override_the_preset() -> None:
    settings = {"training": {"epochs": 3}, "loss": "kld", "members": ["alexnet"], "out_size": None}
    preset = {"training": {"epochs": 20, "augment": "light"}, "loss": "bce", "out_size": [1, 2], "input_size": [8, 8]}
    assert fill_in(settings, preset) == {
        "training": {"epochs": 3, "augment": "light"}, "loss": "kld", "members": ["alexnet"], "out_size": None,
        "input_size": [8, 8],
    }  # fmt: skip
    assert preset["training"] == {"epochs": 20, "augment": "light"}, "neither is changed"
    assert fill_in({"training": "wrong"}, preset)["training"] == "wrong", "wrong values are left to the validation"
    assert fill_in({}, preset) == preset and fill_in(settings, {}) == settings
