"""What can go wrong, as a tree of exceptions; each names the exit code of the command line.

    DensembleError              1   a bug, if nothing below fits
    ├── UsageError              2   an argument or a setting that cannot be used
    │   ├── ConfigError         2   run.yaml or --set: unknown key, wrong value
    │   └── CutError            2   a cut that does not exist or is too small
    ├── DataError               3   images or maps that cannot be used
    ├── ArtifactError           4   an artifact or a run that is damaged, unknown or incomplete
    ├── PartialError            5   some members or images failed, the rest is done
    ├── ResourceError           6   a folder that cannot be written, no memory, no device
    │   └── WeightsError        6   pretrained weights that are absent, unreadable or do not fit
    └── DivergedError           7   training ended in NaN or infinity

Every message says what is wrong, where, and what to do about it.
"""


class DensembleError(Exception):
    """Base of every expected failure of densemble."""

    exit_code = 1


class UsageError(DensembleError):
    """An argument or a setting that cannot be used."""

    exit_code = 2


class ConfigError(UsageError):
    """A run.yaml file or a ``--set`` that cannot be used."""


class CutError(UsageError):
    """A cut that does not exist or whose feature map is too small."""


class DataError(DensembleError):
    """Images or maps that cannot be used."""

    exit_code = 3


class ArtifactError(DensembleError):
    """An artifact or a run folder that is damaged, unknown or incomplete."""

    exit_code = 4


class PartialError(DensembleError):
    """Some members or images failed; the rest is done."""

    exit_code = 5


class ResourceError(DensembleError):
    """The machine cannot do it: a folder that cannot be written, no memory, no such device."""

    exit_code = 6


class WeightsError(ResourceError):
    """Pretrained weights that are absent, unreadable or do not fit the network."""


class DivergedError(DensembleError):
    """Training ended in NaN or infinity."""

    exit_code = 7
