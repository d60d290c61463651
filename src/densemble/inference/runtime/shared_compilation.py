"""Compilation of the networks of one ensemble as one network, so that they share working memory.

A compiled network keeps the memory of its intermediate results. Seven separately compiled networks keep seven times as
much; compiled as one network they keep what the largest of them needs. The outputs are identical.
"""

import threading
from dataclasses import replace
from typing import Any

from torch import Tensor

from densemble.inference.runtime.backends.backend import JoinableRunner, Runner
from densemble.inference.runtime.execution import TunedRunner
from densemble.inference.runtime.per_batch_cache import PerBatchCache

Key = tuple[object, ...]


class SharedRunner:
    """The runner of one network: separate for the batch it was tuned on, part of a shared runner from the next one on.

    While its outputs are unchecked, the network answers its first batch with the outputs of the eager reference.

    Args:
        tuned: the separate runner.
        outputs: number of outputs of the network.
        compilation: networks that it is joined with.
        ran: the network has already run on the batch that it was tuned on.
    """

    def __init__(self, tuned: TunedRunner, outputs: int, compilation: "SharedCompilation", ran: bool = False) -> None:
        self.separate: Runner | None = tuned.runner
        self.outputs = outputs
        self._pending = tuned.pending
        self._compilation, self._calls = compilation, int(ran)
        self._shared: Runner | None = None
        self._first = 0

    def __call__(self, images: Tensor) -> list[Tensor]:
        with self._compilation.lock:  # threads share the compiled network, which runs one batch at a time
            self._calls += 1
            if self._calls == 1 and self._pending is not None and images is self._pending.example:
                return [logits.clone() for logits in self._pending.reference]
            if self._calls == 2 or self._pending is not None:
                self._compilation.join()
            return self._run(images, self._compilation.cache)

    def _run(self, images: Tensor, cache: PerBatchCache) -> list[Tensor]:
        shared = self._shared
        if shared is not None:
            return cache.get(images, shared, lambda: shared(images))[self._first : self._first + self.outputs]
        assert self.separate is not None
        return self.separate(images)

    def use(self, shared: Runner, first: int) -> None:
        """Take the outputs from ``first`` on of a shared runner in all later calls."""
        self.separate, self._shared, self._first = None, shared, first

    def check(self, cache: PerBatchCache) -> None:
        """Compare unchecked outputs with the reference, and run eagerly from now on if they are wrong.

        Args:
            cache: outputs for the examples; the ensemble's cache holds the batch that is being predicted.
        """
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        if not pending.is_right(self._run(pending.example, cache)):
            self.separate, self._shared = pending.eager(), None


class SharedCompilation:
    """Networks of one ensemble that see the same images. A copy starts without networks and waits for the copied ones.

    Args:
        cache: cache of the ensemble.
    """

    def __init__(self, cache: PerBatchCache) -> None:
        self._waiting: dict[Key, list[SharedRunner]] = {}
        self.cache = cache
        self.lock = threading.RLock()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.cache,)

    def add(self, tuned: TunedRunner, outputs: int, key: Key, ran: bool = False) -> TunedRunner:
        """Return the same network with a runner that is joined with others later.

        Args:
            tuned: the network at one shape.
            outputs: number of outputs of the network.
            key: networks with equal keys get the very same images.
            ran: see :class:`SharedRunner`.
        """
        if not isinstance(tuned.runner, JoinableRunner):
            return tuned
        runner = SharedRunner(tuned, outputs, self, ran)
        with self.lock:
            others = self._waiting.setdefault((type(tuned.runner), tuned.choice.precision, *key), [])
            for other in others:
                if isinstance(other.separate, JoinableRunner):
                    other.separate.rest()  # it does not run separately any more
            others.append(runner)
        return replace(tuned, runner=runner)

    def join(self) -> None:
        """Join the networks that are tuned and still separate, and check outputs that are unchecked."""
        for runners in self._waiting.values():
            separate = [runner.separate for runner in runners if isinstance(runner.separate, JoinableRunner)]
            if len(separate) > 1:
                shared, first = type(separate[0]).join(separate), 0
                for runner in runners:
                    runner.use(shared, first)
                    first += runner.outputs
            examples = PerBatchCache()
            for runner in runners:
                runner.check(examples)
            runners[:] = [runner for runner in runners if isinstance(runner.separate, JoinableRunner)]
