"""Progress of the predictions of an assembly: members are counted, not images times members."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from densemble.progress.phases import Phase, Silent, listening, phase, track
from densemble.selection.candidate_maps import _counted


class Recorder(Silent):
    """Keeps the texts of all phases, each once."""

    def __init__(self) -> None:
        self.texts: dict[str, None] = {}

    def changed(self, phases: Sequence[Phase]) -> None:
        self.texts[", ".join(text for text in map(str, phases) if text)] = None


@pytest.mark.parametrize(("kinds", "name"), [(("member", "member"), "member"), (("member", "hflip"), "candidate")])
def test_members_are_counted(kinds: tuple[str, ...], name: str) -> None:
    recorder = Recorder()
    candidates: Any = [SimpleNamespace(kind=kind) for kind in kinds]
    with listening(recorder), phase("assembling", 5, steps=True) as steps:
        steps.start(1, "maps")
        for _ in _counted(candidates):
            list(track(range(14), "", 14))
    assert list(recorder.texts) == ["assembling 2/5 maps", *(f"assembling 2/5 maps, {name} {n}/2" for n in (1, 2))]
