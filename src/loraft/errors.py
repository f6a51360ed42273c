"""Errors that a user can act on.

Form of a message: `<where>: <what> (got X); <what is allowed, or the next command>`.
"""


class LoraftError(Exception):
    """A mistake or a state of affairs that the user can mend; the command line prints it and exits with 1."""

    exit_code = 1


class ConfigError(LoraftError):
    """The configuration is wrong; carries every mistake found, one a line. Exit code 2, as for usage."""

    exit_code = 2


class DataError(LoraftError):
    """A data source cannot be read as labelled or unlabelled sentences."""


class BackboneError(LoraftError):
    """The backbone, its quantisation or an adapter cannot be built or does not match."""


class RunError(LoraftError):
    """A run directory is missing, unfinished, already there or does not match."""
