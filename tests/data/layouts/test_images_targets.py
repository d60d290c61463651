"""Folders of images beside folders of targets: names, nesting, split files, classes, unmatched files."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from densemble.data.layouts import Layout, find_layout
from densemble.errors import DataError

Write = Callable[..., Path]


def stems(layout: Layout) -> dict[str, list[str]]:
    return {split: [sample.stem for sample in samples] for split, samples in layout.splits.items()}


@pytest.mark.parametrize("images", ["images", "image", "imgs", "img", "inputs", "rgb", "Images"])
def test_names_of_image_folders(images: str, tmp_path: Path, image: Write, label_map: Write) -> None:
    image(tmp_path / images / "b.jpg")
    image(tmp_path / images / "a.jpg")
    label_map(tmp_path / "targets" / "a.png")
    label_map(tmp_path / "targets" / "b.png")
    layout = find_layout(tmp_path)
    assert (layout.name, layout.split_by, stems(layout)) == ("images + targets", "none", {"all": ["a", "b"]})
    assert [sample.target.name for sample in layout.splits["all"]] == ["a.png", "b.png"]


@pytest.mark.parametrize(
    "targets",
    ["targets", "masks", "labels", "depth", "maps", "annotations", "gt", "density", "points", "mask", "label", "map"],
)
def test_names_of_map_folders(targets: str, tmp_path: Path, image: Write, label_map: Write) -> None:
    image(tmp_path / "images" / "a.jpg")
    made = label_map(tmp_path / targets / "a.png")
    assert [sample.target for sample in find_layout(tmp_path).splits["all"]] == [made]


@pytest.mark.parametrize("inside", [True, False])
def test_both_nestings_of_splits_and_their_synonyms(
    inside: bool, tmp_path: Path, image: Write, label_map: Write
) -> None:
    for split in ("training", "Valid", "testing"):
        for kind, write, suffix in (
            ("images", image, "jpg"),
            ("masks", label_map, "png"),
            ("fixations", label_map, "png"),
        ):
            folder = tmp_path / split / kind if inside else tmp_path / kind / split
            write(folder / f"{split}.{suffix}")
    layout = find_layout(tmp_path)
    assert stems(layout) == {"train": ["training"], "val": ["Valid"], "test": ["testing"]}
    assert layout.split_by == "folders" and layout.unpaired == ()
    for split in layout.splits.values():
        assert split[0].target.parent != split[0].points.parent and split[0].points.stem == split[0].stem


def test_two_folders_for_one_split_are_refused(tmp_path: Path, image: Write, label_map: Write) -> None:
    for split in ("val", "validation"):
        image(tmp_path / split / "images" / "a.jpg")
        label_map(tmp_path / split / "masks" / "a.png")
    with pytest.raises(DataError, match="both name the val split"):
        find_layout(tmp_path)


def test_files_without_partner_and_files_of_one_name_are_reported(
    tmp_path: Path, image: Write, label_map: Write
) -> None:
    alone = [image(tmp_path / "images" / "b.jpg"), label_map(tmp_path / "masks" / "c.png")]
    first, second = image(tmp_path / "images" / "a.jpg"), image(tmp_path / "images" / "a.png")
    label_map(tmp_path / "masks" / "a.png")
    image(tmp_path / "images" / ".hidden.jpg")
    layout = find_layout(tmp_path)
    assert list(layout.unpaired) == alone
    assert layout.doubled == ((first, second),)
    assert [sample.image for sample in layout.splits["all"]] == [first]


def test_nested_folders_are_followed_and_give_the_name(tmp_path: Path, image: Write, label_map: Write) -> None:
    for place in ("rome/day/1", "rome/night/1", "2"):
        image(tmp_path / "images" / f"{place}.jpg")
        label_map(tmp_path / "masks" / f"{place}.png")
    layout = find_layout(tmp_path)
    assert stems(layout) == {"all": ["2", "rome__day__1", "rome__night__1"]}
    assert layout.splits["all"][1].target == tmp_path / "masks" / "rome" / "day" / "1.png"


@pytest.mark.parametrize("ending", ["_mask", "_label", "_labels", "_gt", "_depth", "_seg", "-mask"])
def test_one_common_ending_of_the_maps(ending: str, tmp_path: Path, image: Write, label_map: Write) -> None:
    for stem in "ab":
        image(tmp_path / "images" / f"{stem}.jpg")
        label_map(tmp_path / "masks" / f"{stem}{ending}.png")
    assert stems(find_layout(tmp_path)) == {"all": ["a", "b"]}
    label_map(tmp_path / "masks" / "a.png")  # one equal stem: endings mean something else here
    layout = find_layout(tmp_path)
    assert stems(layout) == {"all": ["a"]} and len(layout.unpaired) == 3


def test_a_folder_for_each_class(tmp_path: Path, image: Write, label_map: Write) -> None:
    for stem in "ab":
        image(tmp_path / "images" / f"{stem}.jpg")
        for name in ("tree", "car"):
            label_map(tmp_path / "masks" / name / f"{stem}.png")
    (tmp_path / "masks" / "car" / "b.png").unlink()
    layout = find_layout(tmp_path)
    (sample,) = layout.splits["all"]
    assert layout.classes == ("car", "tree") and sample.target == tmp_path / "masks"
    assert sample.planes == tuple((name, tmp_path / "masks" / name / "a.png") for name in ("car", "tree"))
    assert layout.unpaired == (tmp_path / "images" / "b.jpg",)  # it has no car/b.png


def test_several_folders_of_maps_are_refused_unless_one_is_called_targets(
    tmp_path: Path, image: Write, label_map: Write
) -> None:
    image(tmp_path / "images" / "a.jpg")
    label_map(tmp_path / "masks" / "a.png")
    label_map(tmp_path / "depth" / "a.png")
    with pytest.raises(DataError, match=r"\(masks, depth\).*pairs\.csv"):
        find_layout(tmp_path)
    made = label_map(tmp_path / "targets" / "a.png")
    assert find_layout(tmp_path).splits["all"][0].target == made


def test_tables_of_points_are_maps(tmp_path: Path, image: Write) -> None:
    image(tmp_path / "images" / "a.jpg")
    (tmp_path / "points").mkdir()
    (tmp_path / "points" / "a.csv").write_text("x,y\n1,2\n")
    assert find_layout(tmp_path).splits["all"][0].target.name == "a.csv"


def test_classes_and_colours(tmp_path: Path, image: Write, label_map: Write) -> None:
    image(tmp_path / "images" / "a.jpg")
    label_map(tmp_path / "masks" / "a.png")
    (tmp_path / "class_dict.csv").write_text("name,r,g,b\nroad,1,2,3\ncar,4,5,6\n")
    layout = find_layout(tmp_path)
    assert layout.classes == ("road", "car") and layout.color_map == {(1, 2, 3): 0, (4, 5, 6): 1}
    (tmp_path / "classes.txt").write_text("car\n\nroad\n")
    layout = find_layout(tmp_path)
    assert layout.classes == ("car", "road") and layout.color_map == {(1, 2, 3): 1, (4, 5, 6): 0}
    (tmp_path / "classes.txt").write_text("car\n")
    with pytest.raises(DataError, match="name different classes"):
        find_layout(tmp_path)


@pytest.mark.parametrize(
    "text", ["name,r,g,b\nroad,1,2\n", "name,r,g,b\nroad,1,2,300\n", 'name\n"road\n', "h\na,1,1,1\nb,1,1,1"]
)
def test_class_tables_that_cannot_be_read(text: str, tmp_path: Path, image: Write, label_map: Write) -> None:
    image(tmp_path / "images" / "a.jpg")
    label_map(tmp_path / "masks" / "a.png")
    (tmp_path / "class_dict.csv").write_text(text)
    with pytest.raises(DataError, match="class_dict"):
        find_layout(tmp_path)


# --- split files ----------------------------------------------------------------------------------------------------


@pytest.fixture
def five(tmp_path: Path, image: Write, label_map: Write) -> Path:
    for stem in "abcde":
        image(tmp_path / "images" / f"{stem}.jpg")
        label_map(tmp_path / "masks" / f"{stem}.png")
    return tmp_path


@pytest.mark.parametrize("place", ["", "splits", "ImageSets", "ImageSets/Segmentation"])
def test_split_files_of_stems_names_and_pairs(place: str, five: Path, label_map: Write) -> None:
    other = label_map(five / "corrected" / "z.png")
    (five / place).mkdir(parents=True, exist_ok=True)
    (five / place / "train.txt").write_text("c\na.jpg\nimages/b.jpg masks/b.png\nlost\n")
    (five / place / "val.txt").write_text("/elsewhere/images/d.jpg\na\nimages/e.jpg corrected/z.png\n")
    layout = find_layout(five)
    assert stems(layout) == {"train": ["a", "b", "c"], "val": ["a", "d", "e"]}  # a is in both: the check tells
    assert layout.splits["val"][2].target == other
    assert layout.split_by == "files" and layout.unpaired == (five / "images" / "lost",)


def test_a_listed_image_without_a_map_is_reported_and_an_unlisted_one_is_not(five: Path, image: Write) -> None:
    listed, _ = image(five / "images" / "x.jpg"), image(five / "images" / "y.jpg")
    (five / "train.txt").write_text("a\nx\n")
    assert find_layout(five).unpaired == (listed,)


@pytest.mark.parametrize(
    "line",
    [
        "images\\rome\\1.jpg",
        ".\\images\\rome\\1.jpg",
        "C:\\set\\images\\rome\\1.jpg",
        "rome\\1",
        "images\\rome\\1.jpg masks\\rome\\1.png",
        "D:\\set\\images\\rome\\1.jpg D:\\set\\masks\\rome\\1.png",
        "/home/me/set/images/rome/1.jpg",
    ],
)
def test_split_files_of_other_systems(line: str, tmp_path: Path, image: Write, label_map: Write) -> None:
    for place in ("rome/1", "oslo/1"):
        image(tmp_path / "images" / f"{place}.jpg")
        label_map(tmp_path / "masks" / f"{place}.png")
    (tmp_path / "train.txt").write_text(f"{line}\n")
    layout = find_layout(tmp_path)
    assert (stems(layout), layout.unpaired) == ({"train": ["rome__1"]}, ())


def test_split_files_of_decomposed_names(five: Path, image: Write, label_map: Write) -> None:
    image(five / "images" / "caf\u00e9.jpg")
    label_map(five / "masks" / "caf\u00e9.png")
    (five / "val.txt").write_text("cafe\u0301\n", encoding="utf-8")
    assert stems(find_layout(five)) == {"val": ["caf\u00e9"]}


def test_splits_json(five: Path) -> None:
    (five / "splits.json").write_text(json.dumps({"validation": ["b"], "train": ["c", "a"]}))
    assert stems(find_layout(five)) == {"train": ["a", "c"], "val": ["b"]}


@pytest.mark.parametrize("text", ["{", "[]", '{"holdout": ["a"]}', '{"train": "a"}', '{"train": [1]}', "[" * 100_000])
def test_splits_json_that_cannot_be_read(text: str, five: Path) -> None:
    (five / "splits.json").write_text(text)
    with pytest.raises(DataError, match=r"splits\.json"):
        find_layout(five)


# --- what fits nothing ----------------------------------------------------------------------------------------------


def test_an_unknown_folder_is_described(tmp_path: Path, image: Write) -> None:
    image(tmp_path / "photos" / "a.jpg")
    (tmp_path / "readme.md").write_text("hello")
    with pytest.raises(DataError, match=r"photos/.*readme\.md.*train/images.*pairs\.csv"):
        find_layout(tmp_path)


def test_images_without_a_targets_folder(tmp_path: Path, image: Write) -> None:
    image(tmp_path / "train" / "images" / "a.jpg")
    (tmp_path / "train" / "labels").mkdir()
    (tmp_path / "train" / "labels" / "a.txt").write_text("0 0.5 0.5 0.1 0.1")
    with pytest.raises(DataError, match=r"train/images.*have no targets"):
        find_layout(tmp_path)


def test_absent_and_empty(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data folder"):
        find_layout(tmp_path / "absent")
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        find_layout(tmp_path)


# --- links, other formats, decomposed names -------------------------------------------------------------------------


def test_links_to_folders_and_files_are_followed(tmp_path: Path, image: Write, label_map: Write) -> None:
    for kind, write in (("images", image), ("targets", label_map)):
        write(tmp_path / "data" / kind / "a.png")
        write(tmp_path / "store" / kind / "deep" / "1.png")
        write(tmp_path / "store" / f"{kind}.png")
        (tmp_path / "data" / kind / "site_b").symlink_to(tmp_path / "store" / kind)
        (tmp_path / "data" / kind / "c.png").symlink_to(tmp_path / "store" / f"{kind}.png")
    assert stems(find_layout(tmp_path / "data")) == {"all": ["a", "c", "site_b__deep__1"]}


@pytest.mark.parametrize("aim", ["data/images", "data/images/deep", "data", ""])
def test_a_link_into_its_own_folder_is_refused(aim: str, tmp_path: Path, image: Write, label_map: Write) -> None:
    image(tmp_path / "data" / "images" / "deep" / "a.png")
    label_map(tmp_path / "data" / "targets" / "deep" / "a.png")
    link = tmp_path / "data" / "images" / "deep" / "again"
    link.symlink_to(tmp_path / aim)
    with pytest.raises(DataError, match=r"link '.*again' leads to"):
        find_layout(tmp_path / "data")


def test_files_that_are_not_used_are_listed(tmp_path: Path, image: Write, label_map: Write) -> None:
    for stem in "ab":
        image(tmp_path / "images" / f"{stem}.jpg")
        label_map(tmp_path / "masks" / f"{stem}.png")
    unused = [image(tmp_path / place) for place in ("images/c.ppm", "images/deep/d.gif", "masks/c.pgm")]
    (broken := tmp_path / "masks" / "site_b").symlink_to(tmp_path / "gone")
    (tmp_path / "images" / "Thumbs.db").write_bytes(b"x")
    assert sorted(find_layout(tmp_path).unused) == sorted([*unused, broken])
    (tmp_path / "train.txt").write_text("a\n")
    unlisted = [tmp_path / "images" / "b.jpg", tmp_path / "masks" / "b.png"]
    assert sorted(find_layout(tmp_path).unused) == sorted([*unused, broken, *unlisted])


def test_a_name_pairs_with_itself_decomposed(tmp_path: Path, image: Write, label_map: Write) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    image(tmp_path / "images" / f"{decomposed}.jpg")
    label_map(tmp_path / "masks" / f"{composed}.png")
    assert stems(find_layout(tmp_path)) == {"all": [composed]}
