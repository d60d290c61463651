"""Networks that run on the same images one after the other, compiled as one: they compute in the same memory.

A compiled network keeps the memory of what it computes on the way. Of seven networks that is seven times as much; of
the seven as one network it is what the largest needs, and the numbers are the same ones.
"""

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from densemble.inference.runtime.backends.backend import JoinableRunner, Runner
from densemble.inference.runtime.execution import Tuned
from densemble.inference.runtime.per_batch_cache import PerBatchCache

Key = tuple[object, ...]


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
        self._joint: Runner | None = None
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
        return self._run(images, self._together.cache)

    def _run(self, images: Tensor, cache: PerBatchCache) -> list[Tensor]:
        joint = self._joint
        if joint is not None:
            return cache.get(images, joint, lambda: joint(images))[self._first : self._first + self.outputs]
        assert self.alone is not None
        return self.alone(images)

    def take(self, joint: Runner, first: int) -> None:
        """From now on its answers are those of a joint network, from output ``first`` on."""
        self.alone, self._joint, self._first = None, joint, first

    def check(self, cache: PerBatchCache) -> None:
        """Compares unchecked numbers with the reference, and runs eagerly from now on if they are wrong.

        Args:
            cache: of the examples; that of the ensemble holds the batch that is being predicted.
        """
        if self._unchecked is None:
            return
        unchecked, self._unchecked = self._unchecked, None
        if not unchecked.is_right(self._run(unchecked.example, cache)):
            self.alone, self._joint = unchecked.eager(), None


def _join(seats: Sequence[Seat], joint: Runner) -> None:
    first = 0
    for seat in seats:
        seat.take(joint, first)
        first += seat.outputs


class Together:
    """Networks of one ensemble that see the same images; a copy waits for the copied networks.

    Args:
        cache: of the ensemble.
    """

    def __init__(self, cache: PerBatchCache) -> None:
        self._waiting: dict[Key, list[Seat]] = {}
        self.cache = cache
        self.lock = threading.RLock()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.cache,)

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
                _join(seats, type(alone[0]).join(alone))
            examples = PerBatchCache()
            for seat in seats:
                seat.check(examples)
            seats[:] = [seat for seat in seats if isinstance(seat.alone, JoinableRunner)]
