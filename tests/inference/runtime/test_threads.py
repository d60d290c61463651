"""Threads that share a prepared ensemble get the maps of their own images."""

import copy
import pickle
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from sampled import sampled
from small_networks import small_dense
from torch import Tensor

import densemble as de
from densemble.inference.predict import prepared
from densemble.inference.runtime.fast_ensemble import accelerate
from densemble.inference.runtime.per_batch_cache import PerBatchCache
from densemble.inference.runtime.tuned_network import TunedNetwork
from densemble.nets.dense import DenseModel

FIRST, SECOND = torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4)


def in_between(act: Callable[[], Any]) -> None:
    """Does something in another thread, and returns when it is done."""
    thread = threading.Thread(target=act)
    thread.start()
    thread.join()


def test_each_thread_has_separate_cached_values() -> None:
    """The second thread starts its images while the first thread is still computing."""
    shared, result = PerBatchCache(), {}
    begun, stored = threading.Event(), threading.Event()

    def second() -> None:
        shared.get(SECOND, ("other",), lambda: SECOND)
        begun.set()
        stored.wait()
        result["second"] = shared.get(SECOND, ("key",), lambda: SECOND)

    thread = threading.Thread(target=second)

    def make() -> Tensor:
        thread.start()
        begun.wait()
        return FIRST

    result["first"] = shared.get(FIRST, ("key",), make)
    stored.set()
    thread.join()
    assert result["first"] is FIRST and result["second"] is SECOND


def test_a_batch_is_one_tensor_at_one_version_and_its_derived_tensors() -> None:
    cache, calls = PerBatchCache(), []

    def get(images: Tensor, key: str) -> Tensor:
        return cache.get(images, key, lambda: calls.append(key) or images + 1)  # type: ignore[func-returns-value]

    images = torch.zeros(2, 3)
    part = get(images, "part")
    answer = get(part, "answer")
    assert get(images, "part") is part and get(part, "answer") is answer, "a part does not begin a new batch"
    in_between(lambda: get(torch.ones(2, 3), "part"))
    assert get(part, "answer") is answer, "another thread's batch"
    assert calls == ["part", "answer", "part"]
    images += 1
    assert get(images, "part") is not part, "other images in the same tensor"
    get(torch.ones(2, 3), "part")
    get(part, "answer")
    assert calls[3:] == ["part", "part", "answer"], "only the last batch is kept"


def test_a_cache_does_not_keep_images_alive() -> None:
    cache, images = PerBatchCache(), torch.zeros(2, 3)
    alive = weakref.ref(images)
    cache.get(images, "sum", images.sum)
    del images
    assert alive() is None


def test_networks_with_a_shared_first_part_keep_threads_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread asks between the answers to the first and to the second member."""
    monkeypatch.setattr(TunedNetwork, "_run", lambda self, images, expected: [images, images + 2])
    network = TunedNetwork([small_dense(), small_dense()], None, PerBatchCache())  # type: ignore[arg-type]
    kept = network.grids(FIRST, (4, 4))
    in_between(lambda: network.grids(SECOND, (4, 4)))
    assert network.grids(FIRST, (4, 4)) is kept


def test_threads_that_predict_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every thread normalizes its images before any of them goes on: what they shared would be the last one's."""
    threads = 4
    quick = prepared(de.Ensemble([small_dense(0), small_dense(1)]).eval())
    batches = list(torch.rand(threads, 1, 3, 48, 64))
    expected = [quick.predict(images).mean for images in batches]
    together, plain = threading.Barrier(threads), DenseModel.normalized

    def waiting(self: DenseModel, images: Tensor) -> Tensor:
        made = plain(self, images)
        together.wait(timeout=30)
        return made

    monkeypatch.setattr(DenseModel, "normalized", waiting)
    with ThreadPoolExecutor(threads) as pool:
        result = list(pool.map(lambda images: quick.predict(images).mean, batches))
    for ours, theirs in zip(result, expected, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("backend", sampled(["eager", "openvino"], ["openvino"]))
@pytest.mark.parametrize(
    "copied", [pytest.param(copy.deepcopy, marks=pytest.mark.slow), lambda quick: pickle.loads(pickle.dumps(quick))]
)
def test_a_prepared_ensemble_can_be_copied_and_pickled(
    copied: Callable[[de.Ensemble], de.Ensemble], backend: str
) -> None:
    plain = de.Ensemble([small_dense(0), small_dense(1)]).eval()
    x, other = torch.rand(2, 2, 3, 48, 64)
    before, quick = copied(prepared(plain, backend, "fp32")), accelerate(plain, x, backend, "fp32")
    after = copied(quick)
    with torch.no_grad():
        expected = quick(x), quick(other)
        for one in (before, after):
            for images, maps in zip((x, other), expected, strict=True):
                torch.testing.assert_close(one(images), maps, rtol=1e-5, atol=1e-6)
            assert torch.equal(quick(x), expected[0]), "the first one is left as it is"


def test_a_copy_has_separate_weights() -> None:
    quick = prepared(de.Ensemble([small_dense()]).eval())
    x = torch.rand(2, 3, 48, 64)
    expected = quick(x)
    again = pickle.loads(pickle.dumps(quick))
    for parameter in quick.parameters():
        parameter.data.zero_()
    assert torch.equal(again(x), expected)
