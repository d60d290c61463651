"""Legends: the drawing stays as it is, and the band below it names every colour."""

import numpy as np
import pytest

from densemble.inference.drawing import Bar, Legend, add_legend, colour_values, drawable_name

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 300, 3), dtype=np.uint8)
RED, BLUE = (200, 0, 0), (0, 0, 200)


def covers(band: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((band == colour).all(-1).sum())


@pytest.mark.parametrize("width", [1, 50, 240, 300])
def test_the_drawing_is_unchanged_at_the_top_left(width: int) -> None:
    drawn = add_legend(PIXELS[:, :width], Legend((("road", RED),)))
    np.testing.assert_array_equal(drawn[:40, :width], PIXELS[:, :width])
    assert (drawn[:40, width:] == 255).all() and drawn.shape[1] == max(width, 120) and len(drawn) > 40


def test_an_empty_legend_adds_nothing() -> None:
    assert add_legend(PIXELS, Legend()) is PIXELS


def test_every_entry_has_a_square_and_a_text() -> None:
    one, two = (add_legend(PIXELS, Legend(entries))[40:] for entries in ((("a", RED),), (("a", RED), ("b", BLUE))))
    assert covers(one, RED) == covers(two, RED) == covers(two, BLUE) >= 10 * 10 and covers(one, BLUE) == 0
    no_name = add_legend(PIXELS, Legend((("", RED),)))[40:]
    assert (one < 128).all(-1).sum() > (no_name < 128).all(-1).sum()


def test_entries_that_do_not_fit_get_more_lines() -> None:
    few, many = (add_legend(PIXELS, Legend((("a class", RED),) * count)) for count in (3, 30))
    assert len(many) > len(few) and covers(many, RED) == 10 * covers(few, RED)


def test_letters_grow_with_the_image() -> None:
    legend = Legend((("road", RED),), Bar("depth (m)", 0, 3, "viridis"), "note")
    small, large = (add_legend(np.zeros((10, width, 3), np.uint8), legend) for width in (480, 1920))
    assert len(large) - 10 == pytest.approx(4 * (len(small) - 10), rel=0.05)


def test_the_bar_shows_its_colours_from_low_to_high() -> None:
    band = add_legend(PIXELS, Legend(bar=Bar("depth (m)", 1, 3, "viridis")))[40:]
    ramp = next(row for row in band if covers(row, (68, 1, 84)))  # the first colour of viridis
    inside = np.flatnonzero((ramp != 255).any(-1))
    expected = colour_values(np.linspace(0, 1, len(inside)), 0, 1)
    np.testing.assert_array_equal(ramp[inside], expected)


@pytest.mark.parametrize(
    ("low", "high", "numbers"),
    [(0, 2.398, ["0", "1.2", "2.4"]), (1411.2, 1418.2, ["1411.2", "1414.7", "1418.2"]), (-1, 1, ["-1.0", "0", "1.0"]),
     (0, 1e-7, ["0", "5.00e-08", "1.00e-07"]), (2e7, 4e7, ["2.00e+07", "3.00e+07", "4.00e+07"])],
)  # fmt: skip
def test_numbers_of_a_bar_differ(low: float, high: float, numbers: list[str]) -> None:
    from densemble.inference.drawing.legend import _number

    assert [_number(low + share * (high - low), high - low) for share in (0, 0.5, 1)] == numbers


@pytest.mark.parametrize(
    ("name", "shown"),
    [("road", "road"), ("Straße", "Straße"), ("車", "class 7"), ("x" * 41, "x" * 37 + "..."), ("ﬁeld", "field")],
)
def test_names_that_the_font_lacks(name: str, shown: str) -> None:
    assert drawable_name(name, 7) in (shown, name if name == "ﬁeld" else shown)


def test_without_matplotlib_the_font_of_pillow_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from densemble.inference.drawing import legend

    for function in (legend._font, legend._has, legend._band):
        function.cache_clear()
    monkeypatch.setattr(legend, "find_spec", lambda name: None)
    try:
        assert drawable_name("café", 3) == "cafe" and drawable_name("車", 3) == "class 3"
        assert len(add_legend(PIXELS, Legend(note="depth"))) > 40
    finally:
        for function in (legend._font, legend._has, legend._band):
            function.cache_clear()
