"""Quiet: what Lightning says of itself, and its advice on workers, which a memory-mapped cache has no use for."""

import logging
import warnings

LOGS = ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "lightning.fabric")
WARNINGS = (
    ".*in eval mode at the start of training.*",
    ".*does not have many workers.*",
    ".*number of training batches.*",
    ".*LeafSpec.*",
    ".*sync_dist=True.*",  # all processes validate all images: there is nothing to average
)


def quieten() -> None:
    """Silences both in this process."""
    for name in LOGS:
        logging.getLogger(name).setLevel(logging.ERROR)
    for message in WARNINGS:
        warnings.filterwarnings("ignore", message=message)
