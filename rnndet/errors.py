"""Exceptions for mistakes that the user can fix, with the exit codes of the command line."""


class RnndetError(Exception):
    """A mistake that the user can fix: the message states what is wrong, where, and what to do.

    It names parameters of Python in backticks, such as `overwrite=True`; the command line shows
    its flags instead.
    The command line prints the message without a traceback and exits with `exit_code`:
    2 usage or configuration, 3 input unreadable, 4 output not writable, 5 weights missing,
    incompatible or refused, 6 device not available.
    """

    exit_code = 2


class InputError(RnndetError):
    """A source or an annotation file cannot be read."""

    exit_code = 3


class NothingFoundError(InputError):
    """A folder or list without any item of the requested kind, probably the wrong path."""

    exit_code = 2


class OutputError(RnndetError):
    """A result cannot be written."""

    exit_code = 4


class WeightsError(RnndetError):
    """Weights are missing, damaged, incompatible or refused."""

    exit_code = 5


class DeviceError(RnndetError):
    """The requested device is not available."""

    exit_code = 6
