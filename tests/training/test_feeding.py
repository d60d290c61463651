"""Loaders: threads and processes give equal batches, errors reach the reader, threads end, ranks share samples."""

import queue
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from densemble.data.decoded_cache import DecodedSplit
from densemble.data.transforms import AUGMENT
from densemble.training import dataset
from densemble.training.dataset import AHEAD, DecodedSamples, DeviceSamples, EpochSampler, batches
from densemble.training.features import FeatureSamples

Splits = tuple[DecodedSplit, DecodedSplit]


def all_batches(splits: Splits, workers: int) -> list[tuple[Tensor, Tensor]]:
    """Return the batches of two epochs."""
    samples = DecodedSamples(splits[0], (12, 16), "heat", 0.0, AUGMENT["strong"], 7)
    sampler = EpochSampler(len(splits[0]), 7, 5)
    loader, result = batches(samples, sampler, 5, workers), []
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        result += list(loader)
    return result


def test_threads_and_processes_give_the_same_batches(splits: Splits) -> None:
    here, there = all_batches(splits, 0), all_batches(splits, 2)
    assert len(here) == len(there) == 2 * 5
    for (image, target), (other_image, other_target) in zip(here, there, strict=True):
        assert torch.equal(image, other_image) and torch.equal(target, other_target)
    assert not torch.equal(here[0][0], here[5][0]), "epochs differ"


def test_batches_of_a_device_are_those_of_single_samples(splits: Splits) -> None:
    settings = (splits[0], (12, 16), "heat", 0.0, AUGMENT["strong"], 7)
    sampler, expected = EpochSampler(len(splits[0]), 7, 5), all_batches(splits, 0)[:5]
    found = list(batches(DeviceSamples(*settings, torch.device("cpu")), sampler, 5))
    for (image, target), (other_image, other_target) in zip(found, expected, strict=True):
        assert torch.equal(image, other_image) and torch.equal(target, other_target)


def test_16_bit_images_and_labels_above_255_reach_a_device(splits: Splits) -> None:
    images = np.random.default_rng(0).integers(0, 65536, (3, 3, 8, 8), dtype=np.uint16)
    labels = np.arange(192, dtype=np.uint16).reshape(3, 8, 8) * 100
    split = DecodedSplit(images, labels, ("a", "b", "c"))
    samples = DeviceSamples(split, (8, 8), "labels", 65535, AUGMENT["none"], 0, torch.device("cpu"))
    for (image, target), pixels, label in zip(
        samples.__getitems__([(0, 0), (0, 1), (0, 2)]), images, labels, strict=True
    ):
        torch.testing.assert_close(image, torch.from_numpy(pixels.astype(np.float32)) / 65535)
        assert target.tolist() == label.tolist()


class Numbers(Dataset[Tensor]):
    """Data set of the numbers from 0; reading the number ``broken`` fails."""

    def __init__(self, length: int, broken: int | None = None) -> None:
        self.length = length
        self.broken = broken
        self.read: list[int] = []

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        self.read.append(key[1])
        if key[1] == self.broken:
            raise OSError("disk gone")
        return torch.tensor(key[1])


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "batches"]


def wait_for_no_threads() -> None:
    for thread in threads():
        thread.join(60)
    assert not threads()


def test_an_error_in_the_thread_reaches_the_reader() -> None:
    source = iter(batches(Numbers(12, broken=7), EpochSampler(12, None), 3))
    assert [next(source).tolist(), next(source).tolist()] == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(OSError, match="disk gone"):
        next(source)
    wait_for_no_threads()


def test_all_batches_are_read_and_the_thread_ends() -> None:
    loader = batches(Numbers(7), EpochSampler(7, None), 3)
    for _ in range(2):
        assert [batch.tolist() for batch in loader] == [[0, 1, 2], [3, 4, 5], [6]]
    wait_for_no_threads()


def test_an_abandoned_reader_ends_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    full = threading.Event()

    class Watched(queue.Queue[Any]):
        """Sets an event when a put waits for a free slot."""

        def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
            try:
                super().put(item, block, timeout)
            except queue.Full:
                full.set()
                raise

    monkeypatch.setattr(dataset.queue, "Queue", Watched)
    numbers = Numbers(1000)
    source: Any = iter(batches(numbers, EpochSampler(1000, None), 2))
    next(source)
    full.clear()  # the queue may have been full before the first batch was taken
    for _ in range(2):  # the second time it is full with all that the thread can prepare
        assert full.wait(60)
        full.clear()
    assert len(threads()) == 1 and len(numbers.read) == 2 * (AHEAD + 2), (
        "one read, the queue, and one waiting to be put"
    )
    del source
    wait_for_no_threads()


def as_rank(monkeypatch: pytest.MonkeyPatch, rank: int, world: int) -> None:
    monkeypatch.setattr(dataset.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(dataset.distributed, "get_rank", lambda: rank)
    monkeypatch.setattr(dataset.distributed, "get_world_size", lambda: world)


@pytest.mark.parametrize(("length", "world"), [(24, 2), (25, 2), (26, 3), (7, 4)])
def test_samples_are_split_over_ranks(monkeypatch: pytest.MonkeyPatch, length: int, world: int) -> None:
    sampler = EpochSampler(length, 3)  # created before the processes are connected
    sampler.set_epoch(2)
    alone, shares = [index for _, index in sampler], []
    for rank in range(world):
        as_rank(monkeypatch, rank, world)
        keys = list(sampler)
        assert len(keys) == len(sampler) == length // world and {epoch for epoch, _ in keys} <= {2}
        shares.append([index for _, index in keys])
    flat = [index for share in shares for index in share]
    assert len(set(flat)) == len(flat), "no sample occurs twice"
    assert set(flat) == set(alone[: len(flat)]), (
        "the samples left over are the last of the order, which changes every epoch"
    )


def test_every_rank_validates_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    as_rank(monkeypatch, 1, 2)
    assert list(EpochSampler(5, None)) == [(0, index) for index in range(5)]


@pytest.mark.parametrize(
    ("length", "world", "kept"), [(17, 1, 16), (16, 1, 16), (18, 2, 8), (18, 1, 18), (1, 1, 1), (2, 2, 1)]
)
def test_a_last_batch_of_one_sample_is_dropped(
    monkeypatch: pytest.MonkeyPatch, length: int, world: int, kept: int
) -> None:
    as_rank(monkeypatch, 0, world)
    sizes = [len(batch) for batch in batches(Numbers(length), EpochSampler(length, 0, 8), 8)]
    assert sum(sizes) == kept and len(EpochSampler(length, 0, 8)) == kept
    validated = batches(Numbers(17), EpochSampler(17, None), 8)
    assert [len(batch) for batch in validated] == [8, 8, 1]


def test_16_bit_labels_become_int32() -> None:
    labels = np.array([[[300, 65535], [0, 1]]], np.uint16)
    split = DecodedSplit(np.zeros((1, 3, 2, 2), np.uint8), labels, ("a",))
    _, decoded = DecodedSamples(split, (2, 2), "labels", 255, AUGMENT["none"], 0)[0, 0]
    _, kept = FeatureSamples(split, (2, 2), "labels", [np.zeros((1, 4, 1, 1), np.float32)])[0, 0]
    for target in (decoded, kept):
        assert target.dtype == torch.int32 and target.tolist() == labels[0].tolist()


PROGRAM = """
import sys
import torch
from torch.utils.data import Dataset
from densemble.training.dataset import EpochSampler, batches

class Images(Dataset):
    def __getitem__(self, key):
        return torch.nn.functional.interpolate(torch.rand(1, 3, 300, 300), size=(200, 200), mode="bicubic")[0]

source = iter(batches(Images(), EpochSampler(1000, 0), 8))
next(source)
sys.exit(3)  # as an interrupted training does: the traceback still holds the batches
"""


@pytest.mark.slow
@pytest.mark.parametrize("again", range(3))
def test_a_program_that_exits_early_ends_cleanly(again: int) -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (3, "")
