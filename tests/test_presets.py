"""Presets: sizes that fit, and user settings that override them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from densemble.config import make_config
from densemble.errors import UsageError
from densemble.presets import PRESETS, SMALLEST, fitting_size, preset_settings, under
from densemble.tasks import TASKS

SIDES = st.integers(SMALLEST, 6000)


@given(picture=st.tuples(SIDES, SIDES), pixels=st.sampled_from([36_000, 80_000, 200_000]))
def test_a_size_is_of_eights_and_no_larger_than_the_picture(picture: tuple[int, int], pixels: int) -> None:
    size = fitting_size(picture, pixels)
    for side, own in zip(size, picture, strict=True):
        assert side % 8 == 0 and SMALLEST <= side <= own
    if min(size) > SMALLEST:  # a very long picture keeps its shorter side
        assert (size[0] - 4) * (size[1] - 4) <= pixels  # each side is rounded by half of eight at most


@pytest.mark.parametrize(
    ("picture", "pixels", "size"),
    [
        ((600, 800), 80_000, (248, 328)),  # 80000 = 244.9 x 326.6
        ((480, 640), 36_000, (168, 216)),  # 36000 = 164.3 x 219.1
        ((101, 47), 80_000, (96, 40)),  # smaller than the budget: cut down to eights, never enlarged
        ((20, 20), 80_000, (32, 32)),
        ((100, 10_000), 36_000, (32, 1896)),
    ],
)
def test_sizes_by_hand(picture: tuple[int, int], pixels: int, size: tuple[int, int]) -> None:
    assert fitting_size(picture, pixels) == size


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_valid_run(name: str, task: str) -> None:
    settings = preset_settings(name, task, (480, 640))
    config = make_config({"task": task, **settings})
    assert config.input_size == tuple(settings["input_size"])
    assert config.training.epochs == PRESETS[name]["training"]["epochs"]


def test_where_people_look_is_not_augmented_strongly() -> None:
    assert preset_settings("best", "saliency", (480, 640))["training"]["augment"] == "light"
    assert preset_settings("best", "segmentation", (480, 640))["training"]["augment"] == "strong"
    assert PRESETS["best"]["training"]["augment"] == "strong", "the table itself stays as it is"


def test_a_preset_may_have_a_loss_of_its_own() -> None:
    assert preset_settings("best", "segmentation", (480, 640))["loss"] == "cross_entropy+dice"
    assert "loss" not in preset_settings("best", "depth", (480, 640))


def test_unknown_preset() -> None:
    with pytest.raises(UsageError, match="no preset is named 'quick'; there are: fast, balanced, best"):
        preset_settings("quick", "saliency", (480, 640))


def test_what_is_said_goes_before_what_is_preset() -> None:
    said = {"training": {"epochs": 3}, "loss": "kld", "members": ["alexnet"], "out_size": None}
    preset = {"training": {"epochs": 20, "augment": "light"}, "loss": "bce", "out_size": [1, 2], "input_size": [8, 8]}
    assert under(said, preset) == {
        "training": {"epochs": 3, "augment": "light"}, "loss": "kld", "members": ["alexnet"], "out_size": None,
        "input_size": [8, 8],
    }  # fmt: skip
    assert preset["training"] == {"epochs": 20, "augment": "light"}, "neither is changed"
    assert under({"training": "wrong"}, preset)["training"] == "wrong", "what is wrong is left for the check to tell"
    assert under({}, preset) == preset and under(said, {}) == said
