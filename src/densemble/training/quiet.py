"""Lightning's messages and warnings that do not apply here, such as advice on workers for a memory-mapped cache."""

import logging
import warnings

LOGS = ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "lightning.fabric")
WARNINGS = (
    ".*in eval mode at the start of training.*",
    ".*does not have many workers.*",
    ".*number of training batches.*",
    ".*LeafSpec.*",
    ".*ended before the epoch ended.*",  # the sampler skips the samples that were used
    ".*`training_step` returned `None`.*",  # a batch is skipped if its loss is not finite
    ".*sync_dist=True.*",  # every process validates all images, so there is nothing to average
)


def silence_lightning() -> None:
    """Silence these loggers and warnings in this process."""
    for name in LOGS:
        logging.getLogger(name).setLevel(logging.ERROR)
    for message in WARNINGS:
        warnings.filterwarnings("ignore", message=message)
