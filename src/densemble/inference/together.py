"""Networks that run on the same images one after the other, compiled as one: they compute in the same memory.

A compiled network keeps the memory of what it computes on the way. Of seven networks that is seven times as much; of
the seven as one network it is what the largest needs, and the numbers are the same ones.
"""

import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from densemble.inference.backends.base import JoinableRunner, Runner
from densemble.inference.execution import Tuned
from densemble.inference.per_thread import OwnLock, PerThread

Key = tuple[object, ...]


class Joint:
    """Several networks as one; what it answers is kept for those that ask later, as long as the images live."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._answers: list[tuple[Callable[[], Tensor | None], list[Tensor]]] = []

    def answers(self, images: Tensor) -> list[Tensor]:
        """Logits of all networks."""
        self._answers = [(known, own) for known, own in self._answers if known() is not None]
        for known, own in self._answers:
            if known() is images:
                return own
        found = self._runner(images)
        self._answers.append((weakref.ref(images), found))
        return found


class Seat:
    """The runner of one network: by itself for the batch that it was tuned on, from the next one on with others.

    A network whose numbers are still unchecked answers its first batch with the eager reference.

    Args:
        tuned: the network by itself.
        outputs: how many it has.
        together: of those that it is to be joined with.
        ran: the network has run on the batch that it was tuned on.
    """

    def __init__(self, tuned: Tuned, outputs: int, together: "Together", ran: bool = False) -> None:
        self.alone: Runner | None = tuned.runner
        self.outputs = outputs
        self._unchecked = tuned.unchecked
        self._together, self._calls = together, int(ran)
        self._joint: Joint | None = None
        self._first = 0

    def __call__(self, images: Tensor) -> list[Tensor]:
        with self._together.lock:  # threads share the compiled network, which runs one batch at a time
            return self._answered(images)

    def _answered(self, images: Tensor) -> list[Tensor]:
        self._calls += 1
        if self._calls == 1 and self._unchecked is not None and images is self._unchecked.example:
            return [logits.clone() for logits in self._unchecked.reference]
        if self._calls == 2 or self._unchecked is not None:
            self._together.settle()
        return self._run(images)

    def _run(self, images: Tensor) -> list[Tensor]:
        if self._joint is not None:
            return self._joint.answers(images)[self._first : self._first + self.outputs]
        assert self.alone is not None
        return self.alone(images)

    def take(self, joint: Joint, first: int) -> None:
        """From now on its answers are those of a joint network, from output ``first`` on."""
        self.alone, self._joint, self._first = None, joint, first

    def check(self) -> None:
        """Compares unchecked numbers with the reference, and runs eagerly from now on if they are wrong."""
        if self._unchecked is None:
            return
        unchecked, self._unchecked = self._unchecked, None
        if not unchecked.is_right(self._run(unchecked.example)):
            self.alone, self._joint = unchecked.eager(), None


def _join(seats: Sequence[Seat], joint: Joint) -> None:
    first = 0
    for seat in seats:
        seat.take(joint, first)
        first += seat.outputs


class Together:
    """Networks of one ensemble that see the same images."""

    def __init__(self) -> None:
        self._waiting: dict[Key, list[Seat]] = {}
        self._cut = _Parts()
        self.lock = OwnLock()

    def seat(self, tuned: Tuned, outputs: int, key: Key, ran: bool = False) -> Tuned:
        """The same network, to be joined with others.

        Args:
            tuned: for one shape.
            outputs: how many the network has.
            key: networks of the same key get the very same images.
            ran: see :class:`Seat`.
        """
        if not isinstance(tuned.runner, JoinableRunner):
            return tuned
        seat = Seat(tuned, outputs, self, ran)
        with self.lock:
            others = self._waiting.setdefault((type(tuned.runner), tuned.choice.precision, *key), [])
            for other in others:
                if isinstance(other.alone, JoinableRunner):
                    other.alone.rest()  # it will not run by itself any more
            others.append(seat)
        return replace(tuned, runner=seat)

    def settle(self) -> None:
        """Joins the networks that were tuned and are still alone, and checks numbers that are unchecked."""
        for seats in self._waiting.values():
            alone = [seat.alone for seat in seats if isinstance(seat.alone, JoinableRunner)]
            if len(alone) > 1:
                _join(seats, Joint(type(alone[0]).join(alone)))
            for seat in seats:
                seat.check()
            seats[:] = [seat for seat in seats if isinstance(seat.alone, JoinableRunner)]

    def part(self, images: Tensor, start: int, count: int) -> Tensor:
        """``images[start : start + count]``, filled up with the last one; the same tensor for all who ask for it."""
        cut = self._cut
        if cut.whole() is not images:
            cut.whole, cut.parts = weakref.ref(images), {}
        if (start, count) not in cut.parts:
            part = images[start : start + count]
            missing = count - len(part)
            filled = torch.cat([part, part[-1:].expand(missing, -1, -1, -1)]) if missing else part
            cut.parts[start, count] = filled.contiguous()
        return cut.parts[start, count]


class _Parts(PerThread):
    """Parts of the last batch, by first image and number, in each thread by itself."""

    def __init__(self) -> None:
        self.whole: Callable[[], Tensor | None] = lambda: None
        self.parts: dict[tuple[int, int], Tensor] = {}
