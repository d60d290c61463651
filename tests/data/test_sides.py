"""Classes that name a side are reported, because a mirrored image exchanges them."""

from pathlib import Path

import pytest
from data.good_sets import write_good

from densemble.data.check.sides import sided_names
from densemble.data.folder import FolderData

SIDED = [
    ["left lung", "right lung"],
    ["Left_Eye", "Right_Eye"],
    ["eyeLeft", "eyeRight"],
    ["leftlung", "rightlung"],
    ["l_hip", "r_hip"],
    ["hip.L", "hip.R"],
    ["LEFT", "RIGHT"],
    ["turn left"],
    ["Linke Niere", "Rechte Niere"],
    ["RV-left"],
]
PLAIN = ["background", "road", "bright spot", "copyright", "cleft", "l", "R wave", "upright", "leftover"]


@pytest.mark.parametrize("names", SIDED, ids=str)
def test_sided_names_are_detected_among_other_names(names: list[str]) -> None:
    assert sided_names([*PLAIN, *names]) == names


def test_the_check_warns_with_the_remedy(tmp_path: Path) -> None:
    write_good(tmp_path, "segmentation")
    for classes, count in ((["ground", "left arm", "right arm"], 1), (["a", "b", "c"], 0)):
        problems = FolderData(tmp_path, "segmentation", classes=classes).check()["problems"]
        sides = [problem for problem in problems if problem["kind"] == "sides in names"]
        assert len(sides) == count
        assert all(problem["severity"] == "warning" for problem in sides)
        assert all("training.augment=none" in problem["remedy"] for problem in sides)
