"""Images of a report: best, worst and most disputed ones, each image once."""

from typing import Any

from densemble.report.chosen_images import choose_images


def rows(*pairs: tuple[float | None, float]) -> list[dict[str, Any]]:
    return [{"number": i, "score": score, "disagreement": spread} for i, (score, spread) in enumerate(pairs)]


def test_groups_and_their_first_images() -> None:
    chosen = choose_images(rows(*((i / 10, (7 * i) % 10) for i in range(10))), True, 3)
    leading = [(image.number, image.caption) for image in chosen if image.leading]
    assert leading == [(9, "best"), (0, "worst"), (7, "most disputed, third best")]
    assert {image.number: image.caption for image in chosen[3:]} == {
        8: "second best", 1: "second worst, third most disputed", 2: "third worst", 4: "second most disputed",
    }  # fmt: skip


def test_lower_is_better_and_one_member_cannot_disagree() -> None:
    chosen = choose_images(rows((0.1, 0), (0.5, 0), (0.9, 0), (None, 0)), False, 1)
    assert [(image.number, image.caption) for image in chosen] == [
        (0, "best, third worst"), (2, "worst, third best"), (1, "second best, second worst"),
    ]  # fmt: skip


def test_an_image_of_all_groups_is_shown_once() -> None:
    (image,) = choose_images(rows((0.5, 0.1)), True, 2)
    assert image.caption == "best, worst, most disputed" and image.leading
