"""Parts of the user: head, loss, combination rule, data set and callbacks, as in docs/how-to/own-parts.md."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import densemble as de

PAGE = Path(__file__).resolve().parents[1] / "docs" / "how-to" / "own-parts.md"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The page: its parts in a file ``my_parts.py``, its example run in that folder with small settings."""
    *parts, example = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    folder = tmp_path_factory.mktemp("page")
    (folder / "my_parts.py").write_text("\n".join(parts))
    example = example.replace('"resnet18"', '"resdeconv"').replace("    out=", "    training=dict(epochs=2),\n    out=")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        values: dict[str, Any] = {}
        exec(compile(example, str(PAGE), "exec"), values)
        yield values
        sys.modules.pop("my_parts")


def test_page(page: Any) -> None:
    assert page["ens"].combine == "my_parts:sharp_mean"
