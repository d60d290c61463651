"""Prediction of folders: the same maps as image by image, in order, resumable, bounded in memory, without deadlock."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sampled import sampled
from torch import Tensor

import densemble as de
from densemble.ensemble.membership import UnusableMaps
from densemble.ensemble.prediction import Prediction
from densemble.errors import ResourceError, UsageError
from densemble.inference import sources
from densemble.inference.compute import BatchPredictor
from densemble.inference.failed_image import FailedImage
from densemble.inference.file_kinds import SAVE
from densemble.inference.files import pipeline as batch_stages
from densemble.inference.files.job import Output, Pace
from densemble.inference.files.journal import JOURNAL, Journal
from densemble.inference.files.pipeline import Seconds
from densemble.inference.files.predict_files import predict_files, predict_images
from densemble.inference.files.size_groups import SizeGroups
from densemble.inference.formats import FORMATS
from densemble.inference.image_prediction import ImagePrediction
from densemble.inference.saved import SavedPrediction
from densemble.inference.sources import Item
from densemble.messages import shown
from densemble.storage.images import read_image

OPTIONS = {"weights": None, "input_size": (64, 64), "out_size": (16, 16)}


def tiny(**options: Any) -> de.Ensemble:
    torch.manual_seed(0)
    return de.Ensemble([de.DenseModel("squeezenet1_1", **OPTIONS, **options) for _ in range(2)]).eval()


@pytest.fixture(scope="module")
def saliency() -> de.Ensemble:
    return tiny()


@pytest.fixture(scope="module")
def classes() -> de.Ensemble:
    return tiny(out_channels=4)


@pytest.fixture(autouse=True)
def one_core() -> Iterator[None]:
    """Networks as tiny as these wait for their own threads longer than they compute."""
    own = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(own)


def make_images(folder: Path, sizes: list[tuple[int, int]], suffix: str = "png") -> list[Path]:
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    paths = [folder / f"{number:03}.{suffix}" for number in range(len(sizes))]
    for path, size in zip(paths, sizes, strict=True):
        Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    return paths


def mixed(folder: Path) -> list[Path]:
    """Two sizes in turn, four formats, a grey image, and a broken one at place 4."""
    paths = make_images(folder, [(40, 56), (33, 21), (40, 56), (33, 21), (40, 56), (40, 56), (33, 21)])
    jpeg, tiff, array = folder / "j.jpg", folder / "t.tif", folder / "n.npy"
    Image.open(paths[0]).save(jpeg)
    Image.open(paths[1]).save(tiff)
    Image.open(paths[2]).convert("L").save(paths[2])
    np.save(array, np.asarray(Image.open(paths[3])))
    paths[4].write_bytes(paths[4].read_bytes()[:200])
    return [*paths, jpeg, tiff, array]


def grey(images: Tensor) -> Prediction:
    """Instead of networks: the mean of the colours, which is also how unsure it is."""
    mean = images.mean(1, keepdim=True)
    plane = mean[:, 0]
    return Prediction(mean, mean, plane, plane, plane, plane, None)


@dataclass
class Report:
    """The results of a run, counted."""

    results: list[SavedPrediction | FailedImage]
    seconds: dict[str, float]

    @property
    def failed(self) -> list[str]:
        return [result.failed for result in self.results if result.failed is not None]

    @property
    def skipped(self) -> int:
        return sum(result.failed is None and result.earlier for result in self.results)  # type: ignore[union-attr]

    @property
    def done(self) -> int:
        return len(self.results) - self.skipped - len(self.failed)

    @property
    def ranked(self) -> list[tuple[Path, float]]:
        unsure = [(one.path, one.unsure) for one in self.results if one.failed is None]  # type: ignore[union-attr]
        return sorted((path, value) for path, value in unsure if value is not None)


class Folder:
    """A job over images, and what happened in its last run."""

    def __init__(
        self,
        ensemble: de.Ensemble,
        images: list[Path],
        out: Path,
        predict: Callable[[Tensor], Prediction] = grey,
    ) -> None:
        self.ensemble, self.images, self.out, self.predict = ensemble, images, out, predict
        self.computed: list[tuple[int, ...]] = []
        self.logged: list[str] = []
        out.mkdir(exist_ok=True)

    def compute(self, images: Tensor) -> Prediction:
        self.computed.append(tuple(images.shape))
        return self.predict(images)

    def run(
        self,
        what: tuple[str, ...] = ("map",),
        rank_by: str | None = None,
        pace: Pace | None = None,
        compute: Callable[[Tensor], Prediction] | None = None,
        **asked: Any,
    ) -> Report:
        self.computed, self.logged = [], []
        items = [Item(image, image.stem) for image in self.images]
        output, pace, seconds = Output(self.out, what, rank_by, asked), pace or Pace(3, readers=2, writers=2), Seconds()
        with shown(self.logged.append):
            results = list(predict_files(self.ensemble, items, compute or self.compute, output, pace, seconds))
        return Report(results, seconds.spent)

    def times(self) -> dict[str, int]:
        """When each file was written."""
        return {path.name: path.stat().st_mtime_ns for path in self.out.iterdir() if path.name != JOURNAL}

    def journal(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.out / JOURNAL).read_text().splitlines()]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("densemble-")] == []


@pytest.mark.parametrize("kind", sampled(["saliency", "classes"], ["classes"]))
@pytest.mark.parametrize("pace", [Pace(1), Pace(3, readers=2), Pace(4, pad=True, writers=1)], ids=str)
def test_files_are_those_of_one_image_after_the_other(
    kind: str, pace: Pace, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    ensemble: de.Ensemble = request.getfixturevalue(kind)
    images = mixed(tmp_path / "in")
    folder = Folder(ensemble, images, tmp_path / "out", ensemble.predict_members)
    what = ("map", "overlay", "uncertainty", "npy")
    report = folder.run(what, "entropy", pace)
    assert (report.done, report.skipped, len(report.failed)) == (9, 0, 1)
    assert "004.png" in report.failed[0]
    assert [path for path, _ in report.ranked] == sorted(images[:4] + images[5:])
    for path, unsure in report.ranked:
        (alone,) = predict_images(ensemble, [Item(path, path.stem)], ensemble.predict_members)
        alone.save(tmp_path / "alone", what)
        assert unsure == pytest.approx(alone.unsureness("entropy"), rel=1e-5)
        assert np.abs(np.load(folder.out / f"{path.stem}.npy") - alone.mean.numpy()).max() < 1e-5
        for image in ("map", "overlay", "uncertainty"):
            file = f"{path.stem}_{image}.png"
            ours, theirs = (read_image(place / file).astype(int) for place in (folder.out, tmp_path / "alone"))
            if pace.batch == 1:
                assert np.array_equal(ours, theirs)
            else:  # convolutions of a batch may round the last bit otherwise
                assert (np.abs(ours - theirs) > 1).mean() < 1e-3
    assert not list(folder.out.glob("004*"))


def test_maps_that_are_not_saved_are_dropped(saliency: de.Ensemble, tmp_path: Path) -> None:
    kept: list[ImagePrediction] = []
    folder = Folder(saliency, make_images(tmp_path / "in", [(20, 30)]), tmp_path / "out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImagePrediction, "save", lambda self, *_: kept.append(self) or [])
        folder.run(("map", "overlay"))
        folder.run(("uncertainty",))
        folder.run(("map",), "disagreement")
    present = [{name for name in vars(one) if isinstance(getattr(one, name), Tensor)} for one in kept]
    assert present == [{"mean"}, {"mean", "variance"}, {"mean", "disagreement"}]
    needed = {kind: set(Output(tmp_path, (kind,)).maps(saliency)) for kind in SAVE if kind not in FORMATS}
    assert needed == {
        "map": {"mean"}, "overlay": {"mean"}, "uncertainty": {"variance"}, "npy": {"mean"}, "guarantee": {"included"}
    }  # fmt: skip
    assert {Output(tmp_path, (kind,)).maps(saliency) for kind in FORMATS} == {frozenset({"mean"})}


def test_results_come_in_the_order_of_the_images(saliency: de.Ensemble, tmp_path: Path) -> None:
    images = mixed(tmp_path / "in")
    folder = Folder(saliency, images, tmp_path / "out")
    results = folder.run().results
    assert [result.path for result in results] == images
    assert [result.failed is None for result in results] == [True] * 4 + [False] + [True] * 5
    assert results[4].failed is not None and "004.png" in results[4].failed and folder.logged == []
    assert [result.files for result in results[:2]] == [(folder.out / f"00{n}_map.png",) for n in (0, 1)]


@pytest.mark.parametrize("batch", [1, 3])
def test_predictions_in_memory_are_those_of_the_files(batch: int, classes: de.Ensemble, tmp_path: Path) -> None:
    """The calling thread puts the same images together as the threads do."""
    folder = Folder(classes, mixed(tmp_path / "in"), tmp_path / "out", classes.predict_members)
    folder.run(("map", "npy"), pace=Pace(batch, readers=2))
    items = [Item(image, image.stem) for image in folder.images]
    predictions = predict_images(classes, items, classes.predict_members, Pace(batch, readers=0, writers=0))
    files = [path for p in predictions if p.failed is None for path in p.save(tmp_path / "memory", ("map", "npy"))]
    assert len(files) == 18
    assert all(path.read_bytes() == (folder.out / path.name).read_bytes() for path in files)


def test_a_loop_that_ends_early_ends_the_threads(saliency: de.Ensemble, tmp_path: Path) -> None:
    folder = Folder(saliency, make_images(tmp_path / "in", [(20, 30)] * 30), tmp_path / "out")
    items = [Item(image, image.stem) for image in folder.images]
    results = predict_files(saliency, items, grey, Output(folder.out, ("map",)), Pace(2), Seconds())
    assert next(results).path == folder.images[0]
    results.close()  # type: ignore[attr-defined]
    assert 0 < folder.run(("map",)).skipped < 30


def test_images_of_equal_size_share_batches_and_padding_repeats_them(saliency: de.Ensemble, tmp_path: Path) -> None:
    sizes = [(20, 30), (30, 20)] * 5
    folder = Folder(saliency, make_images(tmp_path / "in", sizes), tmp_path / "out")
    folder.run(pace=Pace(batch=4))
    assert folder.computed == [(4, 3, 20, 30), (4, 3, 30, 20), (1, 3, 20, 30), (1, 3, 30, 20)]
    batches: list[Tensor] = []

    def compute(images: Tensor) -> Prediction:
        batches.append(images)
        return grey(images)

    folder.run(pace=Pace(batch=4, pad=True), compute=compute, other=True)
    assert [len(images) for images in batches] == [4] * 4
    assert all(torch.equal(batches[-1][0], repeated) for repeated in batches[-1])


def test_groups_fill_up_and_the_oldest_goes_when_too_many_wait() -> None:
    groups: SizeGroups[int] = SizeGroups(batch=3, most=4)
    due = [groups.add(shape, item) for item, shape in enumerate("abcdabcc")]
    assert due == [[], [], [], [], [0, 4], [], [1, 5], [2, 6, 7]]
    assert (groups.waiting, groups.oldest(), groups.waiting) == (1, [3], 0)


def test_workers_use_one_core_each_and_leave_the_callers_setting(
    saliency: de.Ensemble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, set[int]] = {"reader": set(), "writer": set(), "caller": set(), "later": set()}
    read, save, own = sources.read_for_ensemble, ImagePrediction.save, torch.get_num_threads()

    def note(role: str) -> None:
        seen[role].add(torch.get_num_threads())

    def compute(images: Tensor) -> Prediction:
        note("caller")
        later = threading.Thread(target=note, args=("later",))
        later.start()
        later.join()
        return grey(images)

    monkeypatch.setattr(sources, "read_for_ensemble", lambda *arguments: (note("reader"), read(*arguments))[1])
    monkeypatch.setattr(ImagePrediction, "save", lambda *arguments: (note("writer"), save(*arguments))[1])
    torch.set_num_threads(own + 2)
    try:
        Folder(saliency, make_images(tmp_path / "in", [(20, 30)] * 20), tmp_path / "out").run(compute=compute)
    finally:
        torch.set_num_threads(own)
    assert seen == {"reader": {1}, "writer": {1}, "caller": {own + 2}, "later": {own + 2}}


@pytest.mark.parametrize(
    ("slow", "distinct"),
    sampled(
        list(product(["read", "compute", "write"], [False, True])),
        [("read", False), ("compute", True), ("write", False)],
    ),
)
def test_images_in_progress_are_bounded_whatever_stage_is_slow(
    slow: str, distinct: bool, saliency: de.Ensemble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_hand, most, lock = 0, 0, threading.Lock()
    read, save = sources.read_for_ensemble, ImagePrediction.save

    def counted_read(path: Path, ensemble: de.Ensemble, keep_bytes: bool) -> Any:
        nonlocal in_hand, most
        with lock:
            in_hand += 1
            most = max(most, in_hand)
        time.sleep(0.003 if slow == "read" else 0)
        return read(path, ensemble, keep_bytes)

    def counted_save(self: ImagePrediction, *arguments: Any) -> list[Path]:
        nonlocal in_hand
        time.sleep(0.02 if slow == "write" else 0)
        with lock:
            in_hand -= 1
        return save(self, *arguments)

    def compute(images: Tensor) -> Prediction:
        time.sleep(0.01 if slow == "compute" else 0)
        return grey(images)

    monkeypatch.setattr(sources, "read_for_ensemble", counted_read)
    monkeypatch.setattr(ImagePrediction, "save", counted_save)
    sizes = [(8 + number if distinct else 8, 9) for number in range(80)]
    folder, pace = Folder(saliency, make_images(tmp_path / "in", sizes), tmp_path / "out"), Pace(2, writers=2)
    assert folder.run(pace=pace, compute=compute).done == 80
    assert in_hand == 0
    assert most <= pace.most_reading + pace.most_waiting + pace.batch + pace.most_writing < 20
    assert most > pace.batch  # they do overlap


def test_a_batch_is_launched_before_the_one_before_it_is_waited_for(saliency: de.Ensemble, tmp_path: Path) -> None:
    events: list[str] = []

    def launch(images: Tensor) -> Callable[[], Prediction]:
        number = sum(event.startswith("launch") for event in events)
        events.append(f"launch {number}")

        def wait() -> Prediction:
            events.append(f"wait {number}")
            if number == 1 and len(images) == 2:
                raise UnusableMaps("net", "gives NaN or infinity", [0], 2)
            return grey(images)

        return wait

    folder = Folder(saliency, make_images(tmp_path / "in", [(8, 9)] * 6), tmp_path / "out")
    done = folder.run(pace=Pace(2, readers=0, writers=0), compute=BatchPredictor(launch, 10**6, in_flight=2))
    assert events[:4] == ["launch 0", "launch 1", "wait 0", "launch 2"]
    assert events.count("wait 1") == 1 and events[-1].startswith("wait")
    assert done.done == 5 and len(events) == 8  # the usable image of batch 1 is launched again, alone


def test_large_images_are_bounded_by_their_bytes(
    saliency: de.Ensemble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = 3 * 40 * 50 * 4
    monkeypatch.setattr(batch_stages, "_MOST_BYTES", 3 * one)
    folder = Folder(saliency, make_images(tmp_path / "in", [(40, 50)] * 12), tmp_path / "out")
    assert folder.run(pace=Pace(batch=8)).done == 12
    assert max(shape[0] for shape in folder.computed) <= 3
    monkeypatch.setattr(batch_stages, "_MOST_BYTES", one // 2)
    assert folder.run(pace=Pace(batch=8), other=True).done == 12  # one always goes through
    assert {shape[0] for shape in folder.computed} == {1}


def test_a_second_run_does_only_what_is_missing(saliency: de.Ensemble, tmp_path: Path) -> None:
    images = make_images(tmp_path / "in", [(20, 30)] * 8)
    images[5].write_bytes(b"broken")
    folder = Folder(saliency, images, tmp_path / "out")
    what = ("map", "overlay")
    first = folder.run(what, "entropy")
    before = folder.times()
    (folder.out / "002_overlay.png").unlink()
    Image.new("RGB", (30, 20), "red").save(images[6])
    second = folder.run(what, "entropy")
    after = folder.times()
    assert (second.done, second.skipped, len(second.failed)) == (2, 5, 1)
    assert {name for name in before if after[name] == before[name]} == {
        f"{number:03}_{kind}.png" for number in (0, 1, 3, 4, 7) for kind in what
    }
    assert after.keys() == before.keys()
    assert [path for path, _ in second.ranked] == [path for path, _ in first.ranked]
    same = [dict(report.ranked)[path] for report in (first, second) for path in images[:5]]
    assert same[:5] == pytest.approx(same[5:], rel=1e-6)
    assert [result.path for result in second.results[:5]] == [images[number] for number in (0, 1, 3, 4, 7)]
    third = folder.run(what, "entropy")
    assert (third.done, third.skipped, third.ranked) == (0, 7, second.ranked)
    assert folder.computed == []


@pytest.mark.parametrize(
    ("what", "rank_by", "artifact"), [(("overlay",), None, "a"), (("map",), "variance", "a"), (("map",), None, "b")]
)
def test_other_settings_begin_anew(
    what: tuple[str, ...], rank_by: str | None, artifact: str, saliency: de.Ensemble, tmp_path: Path
) -> None:
    folder = Folder(saliency, make_images(tmp_path / "in", [(20, 30)] * 3), tmp_path / "out")
    folder.run(("map",), None, artifact="a")
    assert folder.logged == []
    assert folder.run(what, rank_by, artifact=artifact).done == 3
    assert len(folder.logged) == 1 and "all images are predicted again" in folder.logged[0]
    assert folder.run(what, rank_by, artifact=artifact).skipped == 3
    assert folder.journal()[0]["asked"] == {"artifact": artifact, "save": list(what), "rank_by": rank_by}
    assert len(folder.journal()) == 4


def test_the_same_settings_in_another_order_are_the_same(saliency: de.Ensemble, tmp_path: Path) -> None:
    folder = Folder(saliency, make_images(tmp_path / "in", [(20, 30)]), tmp_path / "out")
    folder.run(("map", "overlay"), artifact="a", precision="fp32")
    assert folder.run(("overlay", "map"), precision="fp32", artifact="a").skipped == 1


def test_an_image_that_became_broken_is_not_ranked_by_its_earlier_result(saliency: de.Ensemble, tmp_path: Path) -> None:
    images = make_images(tmp_path / "in", [(20, 30)] * 2)
    folder = Folder(saliency, images, tmp_path / "out")
    folder.run(rank_by="entropy")
    images[0].write_bytes(b"broken")
    report = folder.run(rank_by="entropy")
    assert len(report.failed) == 1 and [path for path, _ in report.ranked] == [images[1]]


@pytest.mark.parametrize("torn", [b'{"image": "/a/b.png", "si', b"\xff\x00\n", b"[1]\n", b'{"image": 3}\n'])
def test_a_damaged_end_of_the_journal_is_ignored(torn: bytes, saliency: de.Ensemble, tmp_path: Path) -> None:
    folder = Folder(saliency, make_images(tmp_path / "in", [(20, 30)] * 4), tmp_path / "out")
    folder.run()
    journal = folder.out / JOURNAL
    kept = b"".join(journal.read_bytes().splitlines(keepends=True)[:3])
    journal.write_bytes(kept + torn)
    report = folder.run()
    assert (report.done, report.skipped) == (2, 2)
    assert folder.run().skipped == 4


@pytest.mark.slow  # tests/robustness/test_kills.py kills commands
def test_a_killed_run_goes_on_where_it_was(saliency: de.Ensemble, tmp_path: Path) -> None:
    images = make_images(tmp_path / "in", [(20, 30)] * 40)
    folder = Folder(saliency, images, tmp_path / "out")
    script = tmp_path / "slowly.py"
    script.write_text(
        f"import sys, time; sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[2])!r}]\n"
        "from pathlib import Path\n"
        "from test_batch import Folder, grey, tiny\n"
        "def compute(images):\n"
        "    time.sleep(0.05)\n"
        "    return grey(images)\n"
        f"images = sorted(Path({str(tmp_path / 'in')!r}).iterdir())\n"
        f"Folder(tiny(), images, Path({str(folder.out)!r})).run(rank_by='entropy', compute=compute)\n"
    )
    with subprocess.Popen([sys.executable, str(script)]) as process:
        journal, limit = folder.out / JOURNAL, time.monotonic() + 60
        while not journal.exists() or journal.read_bytes().count(b"\n") < 8:
            assert process.poll() is None and time.monotonic() < limit
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    finished = {entry["name"] for entry in folder.journal()[1:]} if journal.read_bytes().endswith(b"\n") else None
    before = folder.times()
    report = folder.run(rank_by="entropy")
    assert 7 <= report.skipped < 40 and report.done == 40 - report.skipped
    assert len(report.ranked) == 40
    if finished is not None:
        assert report.skipped == len(finished)
        assert all(folder.times()[f"{name}_map.png"] == before[f"{name}_map.png"] for name in finished)
    for path in images:
        expected = np.asarray(Image.open(path)).mean(2)
        assert np.abs(np.asarray(Image.open(folder.out / f"{path.stem}_map.png")) - expected).max() < 0.51
        assert dict(report.ranked)[path] == pytest.approx(expected.mean() / 255, rel=1e-4)


def test_a_full_disk_ends_the_run_with_its_error(
    saliency: de.Ensemble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(saliency, make_images(tmp_path / "in", [(20, 30)] * 40), tmp_path / "out")
    save, saved = Image.Image.save, []

    def full(self: Image.Image, *arguments: Any, **options: Any) -> None:
        saved.append(1)
        if len(saved) > 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full)
        with pytest.raises(ResourceError, match="No space left"):
            folder.run()
    assert len(saved) < 40  # it did not go on to the end
    assert {f"{entry['name']}_map.png" for entry in folder.journal()[1:]} <= folder.times().keys()
    assert folder.run().skipped == 5


def test_a_full_disk_for_the_journal_is_reported(tmp_path: Path) -> None:
    with Journal(tmp_path, {}) as journal:
        journal._file.close()
        journal._file = Path("/dev/full").open("ab")  # noqa: SIM115 (the journal closes it)
        with pytest.raises(ResourceError, match=r"cannot write .*No space left"):
            journal.add(SavedPrediction("a", Path("/a.png"), (tmp_path / "a_map.png",)), (1, 2))
    assert journal.finished == {}


def test_a_journal_that_cannot_be_opened_is_reported(saliency: de.Ensemble, tmp_path: Path) -> None:
    folder = Folder(saliency, make_images(tmp_path / "in", [(20, 30)]), tmp_path / "out")
    (folder.out / JOURNAL).mkdir()
    with pytest.raises(ResourceError, match=JOURNAL):
        folder.run()


def test_an_interrupt_stops_soon_and_keeps_what_is_finished(saliency: de.Ensemble, tmp_path: Path) -> None:
    folder = Folder(saliency, make_images(tmp_path / "in", [(20, 30)] * 60), tmp_path / "out")

    def interrupted(images: Tensor) -> Prediction:
        folder.computed.append(tuple(images.shape))
        if len(folder.computed) == 4:
            raise KeyboardInterrupt
        return grey(images)

    with pytest.raises(KeyboardInterrupt):
        folder.run(compute=interrupted)
    finished = {f"{entry['name']}_map.png" for entry in folder.journal()[1:]}
    assert finished == folder.times().keys() and len(finished) <= 9
    for name in finished:
        assert Image.open(folder.out / name).size == (30, 20)
    assert folder.run().skipped == len(finished)


def test_names_must_differ(saliency: de.Ensemble, tmp_path: Path) -> None:
    image = make_images(tmp_path / "in", [(20, 30)])[0]
    with pytest.raises(UsageError, match="unique name"):
        Folder(saliency, [image, image], tmp_path / "out").run()


def test_a_pace_is_at_least_one() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        Pace(batch=0)
    with pytest.raises(UsageError, match="negative"):
        Pace(readers=-1)


def test_nothing_to_do(saliency: de.Ensemble, tmp_path: Path) -> None:
    report = Folder(saliency, [], tmp_path / "out").run(rank_by="entropy")
    assert (report.done, report.skipped, report.failed, report.ranked) == (0, 0, [], [])


def test_seconds_are_parts_of_the_whole(saliency: de.Ensemble, tmp_path: Path) -> None:
    folder = Folder(saliency, make_images(tmp_path / "in", [(20, 30)] * 6), tmp_path / "out")

    def compute(images: Tensor) -> Prediction:
        time.sleep(0.1)
        return grey(images)

    seconds = folder.run(pace=Pace(batch=3), compute=compute).seconds
    assert 0.2 <= seconds["compute"] <= seconds["wall"]
    assert seconds["compute"] + seconds["reading"] + seconds["writing"] <= seconds["wall"]


def test_a_gpu_gets_larger_batches_and_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert Pace.for_device(cpu) == Pace(8) and Pace.for_device(cpu, 3) == Pace(3)
    assert Pace.for_device(gpu) == Pace(32, readers=6, writers=6) and Pace.for_device(gpu, 4).batch == 4
