"""Exceptions and exit codes; names and codes are those of densemble."""


class RuntimeFailure(Exception):
    """Base of every expected failure."""

    exit_code = 1


class UsageError(RuntimeFailure):
    """An unusable argument."""

    exit_code = 2


class DataError(RuntimeFailure):
    """An image that cannot be read or does not fit the model."""

    exit_code = 3


class ArtifactError(RuntimeFailure):
    """A file that is not an ONNX export of densemble, or of an unknown version."""

    exit_code = 4


class PartialError(RuntimeFailure):
    """Some images failed; the others are done."""

    exit_code = 5


class ResourceError(RuntimeFailure):
    """A folder that cannot be written, or a provider that does not start."""

    exit_code = 6
