"""HTML page of a data check, and preview of samples."""

import re
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.broken_sets import BROKEN
from data.good_sets import image_of, photo, save, target_of, write_good
from PIL import Image
from report.page_tags import Tags
from sampled import sampled

from densemble.data.check import check
from densemble.data.folder import FolderData
from densemble.errors import UsageError
from densemble.report.data_page import write_data_page
from densemble.report.preview import draw_preview
from densemble.report.samples import RawSample, SamplePainter, augmented_samples, read_samples

TASKS = ("saliency", "segmentation", "multilabel", "depth", "heatmap", "image")


def page_of(folder: Path, task: str, out: Path, **options: Any) -> tuple[str, Tags]:
    data = FolderData(folder, task, skip_unpaired=True, **options)
    write_data_page(data, check(data), out)
    text = out.read_text()
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    return text, tags


@pytest.mark.parametrize("task", TASKS)
def test_page_is_self_contained_for_every_task(task: str, tmp_path: Path) -> None:
    text, tags = page_of(write_good(tmp_path / "set", task), task, tmp_path / "page.html")
    assert tags.addresses and all(address.startswith("data:image/jpeg;base64,") for address in tags.addresses)
    assert not {"script", "link", "iframe"} & set(tags.seen)
    assert "url(" not in text and "@import" not in text
    assert len(tags.addresses) == 2 * (4 + 2)
    assert all(alt.startswith(("image ", "target of ")) for alt in tags.alts) and len(set(tags.alts)) == 2 * (4 + 2)
    assert 'class="verdict ">ok<' in text


def test_names_are_escaped(tmp_path: Path) -> None:
    folder = write_good(tmp_path / "<b>set&", "segmentation")
    (folder / "classes.txt").write_text("<script>alert(1)</script>\na&b\n'\"\n")
    save(folder / "train" / "images" / "<img src=x>.png", photo(9))
    text, tags = page_of(folder, "segmentation", tmp_path / "page.html")
    assert "script" not in tags.seen and "b" in tags.seen and "&lt;script&gt;alert(1)" in text
    assert all(address.startswith("data:") for address in tags.addresses)
    assert "&lt;img src=x&gt;.png" in text and "a&amp;b" in text


def test_problems_are_grouped_with_remedy_and_similar_images_are_shown_side_by_side(tmp_path: Path) -> None:
    folder = write_good(tmp_path / "set", "segmentation")
    BROKEN["mirrored in val"].spoil(folder)
    BROKEN["black and white"].spoil(folder)
    text, _ = page_of(folder, "segmentation", tmp_path / "page.html")
    assert text.count("<h3>0/255 mask ") == 1 and "and 1 more" in text
    assert "<code>--set &#x27;data.label_map={255: 1}&#x27;</code>" in text
    pair = re.search(r'<figure class="pair">(.*?)</figure>', text, re.DOTALL)
    assert pair is not None and pair[1].count("<img") == 2 and "near-duplicate" in pair[1]
    assert "7 errors" in text


def test_length_of_class_bars_is_proportional_to_the_share(tmp_path: Path) -> None:
    folder = write_good(tmp_path / "set", "segmentation")
    for stem in "abcdef":
        save(target_of(folder, stem), np.repeat([0, 0, 0, 1], 12 * 64).reshape(48, 64).astype(np.uint8))
    text, _ = page_of(folder, "segmentation", tmp_path / "page.html")
    widths = [float(width) for width in re.findall(r"width:([\d.]+)rem", text)]
    assert widths == pytest.approx([12, 12, 4, 4], abs=0.01)
    assert text.count("75.00%") == 2 and text.count("25.00%") == 2


def test_page_of_a_data_set_without_readable_images(tmp_path: Path) -> None:
    folder = write_good(tmp_path / "set", "saliency")
    for stem in "abcdef":
        image_of(folder, stem).write_bytes(b"no image")
    text, tags = page_of(folder, "saliency", tmp_path / "page.html")
    assert "6 errors" in text and tags.addresses == []


@pytest.mark.parametrize(
    ("task", "augmented"),
    sampled(
        list(product(TASKS, [None, "strong"])),
        [("saliency", None), ("segmentation", "strong"), ("depth", None)],
    ),
)
def test_preview_of_every_task(task: str, augmented: str | None, tmp_path: Path) -> None:
    data = FolderData(write_good(tmp_path / "set", task), task)
    draw_preview(data, 2, tmp_path / "p.png", "val", augmented, (48, 64))
    drawn = np.asarray(Image.open(tmp_path / "p.png").convert("RGB"))
    columns = 2 if augmented is None else 4
    assert drawn.shape[1] == pytest.approx(columns * 3.2 * 90, abs=1)
    assert drawn.std() > 20


def test_preview_refuses_other_formats_and_unknown_augmentations(tmp_path: Path) -> None:
    data = FolderData(write_good(tmp_path / "set", "saliency"), "saliency")
    with pytest.raises(UsageError, match=r"name it p\.png"):
        draw_preview(data, 2, tmp_path / "p.jpg")
    with pytest.raises(UsageError, match="there are: none, light, strong"):
        draw_preview(data, 2, tmp_path / "p.png", augmented="weak")


def test_augmented_variants(tmp_path: Path) -> None:
    """Variants equal the sample without augmentation; with it they are reproducible and differ by epoch."""
    data = FolderData(write_good(tmp_path, "segmentation"), "segmentation")
    samples = data.train[:2]
    plain = list(augmented_samples(data, samples, "none", (48, 64)))
    assert len(plain) == 8
    for variant in plain[1:4]:
        np.testing.assert_allclose(variant.image, plain[0].image, atol=1e-6)
        np.testing.assert_array_equal(variant.target, plain[0].target)
    strong, again = (list(augmented_samples(data, samples, "strong", (48, 64), seed=3)) for _ in range(2))
    assert all(np.array_equal(a.image, b.image) for a, b in zip(strong, again, strict=True))
    assert not np.array_equal(strong[1].image, strong[2].image)


def test_colours_of_labels_and_scale_of_values(tmp_path: Path) -> None:
    data = FolderData(write_good(tmp_path / "s", "segmentation"), "segmentation", classes=["sky", "road", "car"])
    raw = list(read_samples(data, data.train))
    painter = SamplePainter(data, raw)
    assert [name for name, _ in painter.legend()] == ["sky", "road", "car", "ignored (255)"]
    white = np.ones((48, 64, 3), np.float32)
    drawn = painter.draw(RawSample("x", white, np.full((48, 64), 1)))[1][0, 0]
    colour = np.array(painter.legend()[1][1])
    np.testing.assert_allclose(drawn, 255 * 0.4 + colour * 0.6, atol=1)
    depth = FolderData(write_good(tmp_path / "d", "depth"), "depth")
    painter = SamplePainter(depth, list(read_samples(depth, depth.train)))
    _, invalid = painter.draw(RawSample("x", white, np.zeros((48, 64))))
    assert not invalid.any() and painter.range is not None and painter.range[0] >= 300
