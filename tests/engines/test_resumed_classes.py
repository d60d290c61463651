"""A resumed run keeps the class numbers on which its members were trained."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from densemble.config import make_config
from densemble.data.folder import FolderData
from densemble.engines import local
from densemble.storage.runs import RunFolder
from densemble.storage.writing import write_json
from densemble.tasks import SegmentationTask


class Decoded(Exception):
    """Ends the training where it would decode."""


@pytest.mark.parametrize("order", [["sky", "road"], ["road", "sky"]])
def test_resumed_classes_keep_their_numbers(order: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, pixels in (("images", np.zeros((4, 6, 3), np.uint8)), ("targets", np.eye(4, 6, dtype=np.uint8))):
        for stem in "abc":
            (tmp_path / "data" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / "data" / kind / f"{stem}.png")
    (tmp_path / "data" / "classes.txt").write_text("\n".join(order))
    run, seen = RunFolder(tmp_path / "run"), []
    run.path.mkdir()
    write_json(run.state, {"data": "", "val": [], "task": SegmentationTask(("sky", "road")).describe()})
    monkeypatch.setattr(local, "_check_members", lambda config: [])
    for name in ("_open_run", "_require_weights", "require_sound"):
        monkeypatch.setattr(local, name, lambda *given: None)

    def decode(training: local.Training) -> None:
        seen.append(training)
        raise Decoded

    monkeypatch.setattr(local, "_decode_all", decode)
    data = FolderData(tmp_path / "data", "segmentation")
    with pytest.raises(Decoded):
        local.train_members(data, make_config({"task": "segmentation"}), run.path, resume=True)
    assert seen[0].task.classes == ("sky", "road")
    diagonal = seen[0].data.read_target(seen[0].data.train[0])[0, 0]
    assert diagonal == ["sky", "road"].index(order[1])  # the files' label 1
