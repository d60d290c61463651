"""Prediction of thousands of files: decoded ahead, computed in batches, written behind, and begun again where it ended.

Threads read and write, the calling thread computes. Threads, not processes: decoding, resizing and compression leave
the interpreter free, and a picture takes longer to come from another process than to decode. What lies between the
stages is bounded in pictures and in bytes, so that a folder needs no more memory than a few batches.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Barrier

import torch

from densemble.ensemble.ensemble import Ensemble
from densemble.errors import UsageError
from densemble.inference.batch_job import Job, Pace
from densemble.inference.batch_journal import Journal
from densemble.inference.batch_progress import Progress, Tally
from densemble.inference.batch_stages import Compute, FilePipeline, Seconds

__all__ = ["Compute", "Job", "Pace", "Progress", "Report", "predict_files"]


@dataclass(frozen=True)
class Report:
    """What came out.

    Attributes:
        done: pictures predicted in this run.
        skipped: pictures finished by an earlier run.
        failed: why, for each picture that could not be read or predicted.
        without: pictures that were predicted without some members, those of earlier runs too, and why.
        ranked: pictures and their mean uncertainty, those of earlier runs too, in the pictures' order.
        seconds: of the calling thread: ``compute``; ``reading`` and ``writing``: waiting for pictures and for writers;
            ``wall``: all.
    """

    done: int
    skipped: int
    failed: list[str]
    ranked: list[tuple[Path, float]]
    seconds: dict[str, float]
    without: list[tuple[Path, Mapping[str, str]]] = field(default_factory=list)


def predict_files(
    ensemble: Ensemble,
    job: Job,
    compute: Compute,
    pace: Pace,
    progress: Callable[[Progress], None],
    say: Callable[[str], None],
) -> Report:
    """Predicts files and writes the results at each picture's own size.

    Pictures of equal size are computed together: neighbours, and others as long as few wait. A picture that cannot be
    read, or that a member gives no usable map of, fails alone; the others go on.

    Args:
        ensemble: says how pictures are read and what maps mean; it is not run.
        job: what to predict.
        compute: predicts a batch; called in this thread.
        pace: how many at once.
        progress: called in this thread, in the pictures' order.
        say: takes remarks, a line each: what failed or lacks members, and that earlier results do not count.

    Raises:
        UsageError: names that are not all different, or a kind of file that the ensemble cannot give.
        ResourceError: results cannot be written.
    """
    if not len(set(job.names)) == len(job.names) == len(job.pictures):
        raise UsageError("every picture needs a name of its own, or one would overwrite another")
    seconds = Seconds()
    asked = {**job.asked, "save": sorted(job.what), "rank_by": job.rank_by}
    with (
        seconds.of("wall"),
        Journal(job.out, asked) as journal,
        _threads(pace.readers, "reader") as readers,
        _threads(pace.writers, "writer") as writers,
    ):
        if journal.discarded:
            say(f"'{journal.path}' is of another artifact or other settings: all pictures are predicted again")
        named = list(zip(job.pictures, job.names, strict=True))
        missing = [place for place, (picture, name) in enumerate(named) if not journal.holds(picture, name)]
        tally = Tally(job.pictures, missing, progress, say)
        FilePipeline(ensemble, job, compute, pace, journal, tally, seconds).run(missing, readers, writers)
        finished = [
            (picture, journal.finished[name])
            for place, (picture, name) in enumerate(named)
            if place not in tally.failed
        ]
    return Report(
        done=len(missing) - len(tally.failed),
        skipped=len(named) - len(missing),
        failed=list(tally.failed.values()),
        ranked=[(picture, entry.unsure) for picture, entry in finished if entry.unsure is not None],
        seconds=seconds.spent,
        without=[(picture, entry.without) for picture, entry in finished if entry.without],
    )


@contextmanager
def _threads(count: int, role: str) -> Iterator[ThreadPoolExecutor]:
    """Threads that compute on one core each; what they have not begun when the context ends is given up."""
    pool = ThreadPoolExecutor(count, f"densemble-{role}")
    together, own = Barrier(count), torch.get_num_threads()

    def limit() -> None:
        # A pool of threads for each of them would fight with the networks' own. The first look at the number takes
        # over the caller's, and would later undo what is set here.
        torch.get_num_threads()
        torch.set_num_threads(1)
        together.wait()

    try:
        for limited in [pool.submit(limit) for _ in range(count)]:
            limited.result()
        torch.set_num_threads(own)  # also what threads that are started later take over
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
