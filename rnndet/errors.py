"""The one exception that means "the user can fix this"."""


class RnndetError(Exception):
    """A mistake the user can fix: the message says what is wrong, where, and what to do.

    Tools print the message without a traceback and end with `exit_code`:
    2 usage or config, 3 input unreadable, 4 output not writable, 5 weights missing, incompatible
    or refused, 6 device not available.
    """

    exit_code = 2


class InputError(RnndetError):
    """A source or an annotation file cannot be read."""

    exit_code = 3


class NothingFoundError(InputError):
    """A folder or a list has none of what was asked for: most likely the wrong one."""

    exit_code = 2


class OutputError(RnndetError):
    """A result cannot be written."""

    exit_code = 4


class WeightsError(RnndetError):
    """Weights are missing, damaged, incompatible or refused."""

    exit_code = 5


class DeviceError(RnndetError):
    """The device that was asked for is not available."""

    exit_code = 6
