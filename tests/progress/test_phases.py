"""Phases of another process, shown in this one."""

from collections.abc import Sequence

from densemble.progress.phases import Mirror, Phase, Silent, listening, phase


class Recorder(Silent):
    def __init__(self) -> None:
        self.seen: list[list[Phase]] = []

    def changed(self, phases: Sequence[Phase]) -> None:
        self.seen.append(list(phases))


def test_phases_of_another_process_are_recognized_by_their_numbers() -> None:
    """A changed phase stays the same object, for rates; a new phase with the number of an old one does not."""
    recorder = Recorder()
    with listening(recorder), phase("training", 1, steps=True) as outer:
        mirror = Mirror()
        mirror.show([(7, Phase("epoch", 3, done=1))])
        first = recorder.seen[-1]
        mirror.show([(7, Phase("epoch", 3, done=2))])
        second = recorder.seen[-1]
        mirror.show([(7, Phase("predicting", 9, "images", done=4))])
        third = recorder.seen[-1]
        mirror.close()
        outer.advance()
    assert first[0] is second[0] is outer and first[1] is second[1] and second[1].done == 2
    assert str(third[1]) == "predicting 4/9 images" and recorder.seen[-1] == [outer]
