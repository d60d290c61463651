"""Measured cost of a member, from which the time of a run is divided."""

import math
from collections.abc import Callable

from densemble.engines.budget import Cost
from densemble.engines.measuring import ScoringTimes, measure_prediction, measure_steps
from densemble.engines.member import finished_epochs
from densemble.training.fit import training_device
from densemble.training.rate import STEPS
from densemble.training.settings import MemberFit

ASSEMBLY_BUILDS, ASSEMBLY_PREDICTIONS, ASSEMBLY_SCORES = 3, 2, 10
"""How often an assembly builds each member, predicts each validation image with it, and scores its stored map.

These are upper bounds. For three members and 64 images of 96x128 on one core they reserve 27 s. The assembly takes
12 s, and up to 60 s more if it measures the milliseconds of slow members.
"""
TIMING_PASSES = 9
"""Forward passes per member that measure milliseconds; see :mod:`densemble.selection.timing`."""
LONGEST_STEP = 0.04
"""A step with a full batch is measured on a CPU if it takes at most this share of the time left."""


def measure_cost(built: MemberFit, scoring: ScoringTimes, left: float, clock: Callable[[], float]) -> Cost:
    """Measure a member with one or two batches.

    Args:
        built: the member.
        scoring: seconds of scoring one image.
        left: seconds left for the whole run.
        clock: returns seconds.
    """
    settings, images = built.settings, len(built.val)
    times = measure_steps(built, clock, LONGEST_STEP * left)
    forward = measure_prediction(built.model, scoring.image, training_device(settings.machine), clock)
    done = finished_epochs(built.folder)
    per_image = ASSEMBLY_PREDICTIONS * forward + ASSEMBLY_SCORES * scoring.stored_size
    return Cost(
        name=built.title,
        step=times.step,
        steps=math.ceil(len(built.train) / times.batch),
        epochs=max(settings.epochs - done, 0),
        validation=times.validation * images,
        start=built.build_seconds
        + times.features * (len(built.train) + images)
        + (STEPS * times.step if settings.learning_rate == "auto" else 0.0),
        ending=images * (forward + scoring.full_size),
        assembly=ASSEMBLY_BUILDS * built.build_seconds + images * per_image + TIMING_PASSES * forward,
    )
