"""CSV files of pairs and Hugging Face's imagefolder."""

import json
from collections.abc import Callable
from pathlib import Path
from unicodedata import normalize

import pytest

from densemble.data.layouts import find_layout
from densemble.errors import DataError

Write = Callable[..., Path]


@pytest.fixture
def files(tmp_path: Path, image: Write, label_map: Write) -> Path:
    for name in "abc":
        image(tmp_path / "x" / f"{name}.jpg")
        label_map(tmp_path / "y" / f"map of {name}.png")
    return tmp_path


@pytest.mark.parametrize("name", ["pairs.csv", "my list.csv"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_columns(name: str, delimiter: str, files: Path) -> None:
    rows = [
        ["Image", "split", "mask", "group", "points"],
        ["x/a.jpg", "train", "y/map of a.png", "g1", ""],
        ["x/b.jpg", "validation", "y/map of b.png", "", "y/map of c.png"],
    ]
    (files / name).write_text("\n".join(delimiter.join(row) for row in rows), encoding="utf-8-sig")
    layout = find_layout(files if name == "pairs.csv" else files / name)
    assert (layout.name, layout.split_by, layout.path) == ("pairs csv", "column", files)
    (a,), (b,) = layout.splits["train"], layout.splits["val"]
    assert (a.image, a.target) == (files / "x" / "a.jpg", files / "y" / "map of a.png")
    assert (a.group, a.points, b.group, b.points) == ("g1", None, None, files / "y" / "map of c.png")


def test_two_columns_without_a_header_and_absent_files(files: Path) -> None:
    (files / "pairs.csv").write_text("x/a.jpg,y/map of a.png\nx/lost.jpg,y/map of b.png\nx/c.jpg,\n")
    layout = find_layout(files)
    assert [sample.stem for sample in layout.splits["all"]] == ["a"]
    assert layout.unpaired == (files / "x" / "lost.jpg", files / "x" / "c.jpg")


def test_equal_stems_get_the_folder_into_their_name(files: Path, image: Write) -> None:
    image(files / "z" / "a.jpg")
    (files / "pairs.csv").write_text("x/a.jpg,y/map of a.png\nz/a.jpg,y/map of b.png\nx/b.jpg,y/map of b.png\n")
    assert [sample.stem for sample in find_layout(files).splits["all"]] == ["x__a", "z__a", "b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("image,caption\nx/a.jpg,hello\n", "none for the targets"),
        ("image,target\nx/a.jpg\n", "1 cells, expected 2"),
        ("image,target,split\nx/a.jpg,y/map of a.png,holdout\n", "holdout"),
        ('image,target\n"x/a.jpg,y\n', "not valid CSV"),
        ("\x00\xff", "pairs.csv"),
    ],
)
def test_tables_that_cannot_be_used(text: str, message: str, files: Path) -> None:
    (files / "pairs.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=message):
        find_layout(files)


@pytest.mark.parametrize("column", ["mask_file_name", "label", "depth", "output_file_name"])
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_imagefolder_with_split_folders(
    column: str, suffix: str, tmp_path: Path, image: Write, label_map: Write
) -> None:
    for split in ("train", "validation"):
        image(tmp_path / split / "a.jpg")
        label_map(tmp_path / split / "maps" / "a.png")
        row = {"file_name": "a.jpg", "caption": "hello", column: "maps/a.png"}
        text = json.dumps(row) if suffix == "jsonl" else ",".join(row) + "\n" + ",".join(row.values())
        (tmp_path / split / f"metadata.{suffix}").write_text(text)
    layout = find_layout(tmp_path)
    assert (layout.name, layout.split_by, list(layout.splits)) == ("imagefolder", "folders", ["train", "val"])
    assert layout.splits["val"][0].target == tmp_path / "validation" / "maps" / "a.png"


def test_imagefolder_with_one_metadata_file(tmp_path: Path, image: Write, label_map: Write) -> None:
    for split in ("train", "test"):
        image(tmp_path / split / "a.jpg")
        label_map(tmp_path / split / "a.png")
    rows = [{"file_name": f"{split}/a.jpg", "mask_file_name": f"{split}/a.png"} for split in ("train", "test")]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert list(find_layout(tmp_path).splits) == ["train", "test"]
    rows.append({"file_name": "train/lost.jpg", "mask_file_name": "train/a.png"})
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert find_layout(tmp_path).unpaired == (tmp_path / "train" / "lost.jpg",)


def test_metadata_that_names_no_maps_is_another_layout(tmp_path: Path, image: Write, label_map: Write) -> None:
    image(tmp_path / "images" / "a.jpg")
    label_map(tmp_path / "masks" / "a.png")
    (tmp_path / "metadata.csv").write_text("file_name,label\nimages/a.jpg,cat\n")
    assert find_layout(tmp_path).name == "images + targets"


@pytest.mark.parametrize("text", ["{", "[1]", '{"file_name": "a.jpg", "mask": "a.png"}\n{"mask": "b.png"}'])
def test_metadata_that_cannot_be_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").write_text(text)
    with pytest.raises(DataError, match=r"metadata\.jsonl"):
        find_layout(tmp_path)


@pytest.mark.parametrize(
    "header",
    [
        *(
            "image_path,mask_path",
            "Image Path,Mask Path",
            "images,masks",
            "img_file,label_file",
            "filename,ground_truth",
        ),
        *("rgb_image_path,mask_image_path", "input_image_file,gt_mask_file", "image_id,photo_path,depth_map_path"),
        *("path,segmentation_path", "input-path,output-path", "image,image_path,mask", "filepath,gt_filepath"),
    ],
)
def test_names_of_columns(header: str, files: Path) -> None:
    rows = [["x/a.jpg", "y/map of a.png"], ["x/b.jpg", "y/map of b.png"]]
    if header.count(",") == 2:
        rows = [["17", *row] for row in rows]
    (files / "pairs.csv").write_text("\n".join([header, *(",".join(row) for row in rows)]))
    layout = find_layout(files)
    expected = [(files / "x" / f"{name}.jpg", files / "y" / f"map of {name}.png") for name in "ab"]
    assert [(sample.image, sample.target) for sample in layout.splits["all"]] == expected
    assert layout.unpaired == ()


@pytest.mark.parametrize("header", ["a,b", "first,second", "id,caption"])
def test_columns_of_unknown_names_are_listed(header: str, files: Path) -> None:
    (files / "pairs.csv").write_text(f"{header}\nx/a.jpg,y/map of a.png\n")
    with pytest.raises(DataError, match=r"columns .*name them image,target"):
        find_layout(files)


@pytest.mark.parametrize(
    ("image_name", "target_name"),
    [
        ("x\\a.jpg", "y\\map of a.png"),
        (".\\x\\a.jpg", ".\\y\\map of a.png"),
        ("C:\\Users\\me\\set\\x\\a.jpg", "C:\\Users\\me\\set\\y\\map of a.png"),
        ("//server/share/x/a.jpg", "/home/me/other/y/map of a.png"),
        ("DATA/x/a.jpg", "DATA\\y\\map of a.png"),
    ],
)
def test_paths_of_other_systems(image_name: str, target_name: str, files: Path) -> None:
    line = f"{image_name},{target_name}".replace("DATA", files.name)
    for name, header in (("pairs.csv", "image,target"), ("metadata.csv", "file_name,mask_file_name")):
        (files / name).write_text(f"{header}\n{line}\n")
        (sample,) = find_layout(files).splits["all"]
        assert (sample.image, sample.target) == (files / "x" / "a.jpg", files / "y" / "map of a.png")
        (files / name).unlink()


def test_a_path_never_finds_a_file_of_another_folder(files: Path, image: Write) -> None:
    image(files / "a.jpg")
    (files / "pairs.csv").write_text("image,target\nC:\\set\\images\\a.jpg,D:\\set\\masks\\a.jpg\n")
    layout = find_layout(files)
    assert layout.splits["all"] == () and len(layout.unpaired) == 2


@pytest.mark.parametrize(("written", "stored"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_in_a_table(written: str, stored: str, tmp_path: Path, image: Write, label_map: Write) -> None:
    name = "caf\u00e9"
    on_disk = normalize(stored, name)
    image(tmp_path / on_disk / f"{on_disk}.jpg")
    label_map(tmp_path / on_disk / f"{on_disk}.png")
    listed = normalize(written, name)
    (tmp_path / "pairs.csv").write_text(f"image,target\n{listed}/{listed}.jpg,{listed}/{listed}.png\n")
    (sample,) = find_layout(tmp_path).splits["all"]
    assert sample.image.is_file() and sample.target.is_file() and sample.stem == normalize("NFC", name)
