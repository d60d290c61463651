"""Threads that share a prepared ensemble: each gets the maps of its own images."""

import copy
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from small_networks import small_dense
from torch import Tensor

import densemble as de
from densemble.inference.fast import SharedInput
from densemble.inference.network import TunedNetwork
from densemble.inference.predict import prepared
from densemble.inference.together import Together
from densemble.nets.dense import DenseModel

FIRST, SECOND = torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4)


def in_between(act: Callable[[], Any]) -> None:
    """Does something in another thread, and returns when it is done."""
    thread = threading.Thread(target=act)
    thread.start()
    thread.join()


def test_shared_input_keeps_what_belongs_to_the_thread() -> None:
    """The second thread's images come while the first thread makes something of its own."""
    shared, found = SharedInput(), {}
    begun, stored = threading.Event(), threading.Event()

    def second() -> None:
        shared.get(SECOND, ("other",), lambda: SECOND)
        begun.set()
        stored.wait()
        found["second"] = shared.get(SECOND, ("key",), lambda: SECOND)

    thread = threading.Thread(target=second)

    def make() -> Tensor:
        thread.start()
        begun.wait()
        return FIRST

    found["first"] = shared.get(FIRST, ("key",), make)
    stored.set()
    thread.join()
    assert found["first"] is FIRST and found["second"] is SECOND


def test_parts_of_a_batch_are_the_threads_own() -> None:
    together = Together()
    kept = together.part(FIRST, 0, 2)
    in_between(lambda: together.part(SECOND, 0, 2))
    assert together.part(FIRST, 0, 2) is kept and torch.equal(kept, torch.zeros(2, 3, 4, 4))


def test_networks_with_a_shared_beginning_keep_the_threads_own_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread asks between the answers to the first and to the second member."""
    monkeypatch.setattr(TunedNetwork, "_run", lambda self, images, wanted: [images, images + 2])
    network = TunedNetwork([small_dense(), small_dense()], None)  # type: ignore[arg-type]
    kept = network.grids(FIRST, (4, 4))
    in_between(lambda: network.grids(SECOND, (4, 4)))
    assert network.grids(FIRST, (4, 4)) is kept


def test_threads_that_predict_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every thread normalizes its images before any of them goes on: what they shared would be the last one's."""
    threads = 4
    quick = prepared(de.Ensemble([small_dense(0), small_dense(1)]).eval())
    batches = list(torch.rand(threads, 1, 3, 48, 64))
    wanted = [quick.predict(images).mean for images in batches]
    together, plain = threading.Barrier(threads), DenseModel.normalized

    def waiting(self: DenseModel, images: Tensor) -> Tensor:
        made = plain(self, images)
        together.wait(timeout=30)
        return made

    monkeypatch.setattr(DenseModel, "normalized", waiting)
    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(lambda images: quick.predict(images).mean, batches))
    for ours, theirs in zip(found, wanted, strict=True):
        assert torch.equal(ours, theirs)


def test_a_prepared_ensemble_can_be_copied() -> None:
    lean = prepared(de.Ensemble([small_dense(), small_dense()]).eval(), "eager", "fp32", 4)
    x = torch.rand(2, 3, 48, 64)
    with torch.no_grad():
        wanted = lean(x)
        assert torch.equal(copy.deepcopy(lean)(x), wanted)
