"""The exception hierarchy of Shiftwright, and the exit code that each class maps to.

Every error that a user can cause is a :class:`ShiftwrightError`. Its message says what is wrong, where, the offending
value, the rule, and what to do. The command line prints the message and exits with :attr:`ShiftwrightError.exit_code`.
"""


class ShiftwrightError(Exception):
    """Base of all errors that are the user's to mend."""

    exit_code = 2


class ConfigError(ShiftwrightError):
    """An accelerator configuration breaks a rule."""


class ModelError(ShiftwrightError):
    """A network, recipe or checkpoint can't be used."""


class UnsupportedError(ModelError):
    """A network has an operator or an attribute that the array can't run."""


class CapacityError(ModelError):
    """A network does not fit the accelerator configuration, or an accelerator its device.

    Parameters
    ----------
    message : str
    **needs : int
        Parameters of the configuration that would have to be larger, with the least values that do.
    """

    def __init__(self, message: str, **needs: int) -> None:
        super().__init__(message)
        self.needs = needs


class OverflowProofError(ModelError):
    """An accumulator could overflow with the given weights and activation ranges."""


class ImageError(ShiftwrightError):
    """An image file is damaged, of the wrong kind, or made for another configuration."""


class DataError(ShiftwrightError):
    """A data set or input file is missing or damaged."""


class MismatchError(ShiftwrightError):
    """A comparison of two implementations failed."""

    exit_code = 1


class ToolError(ShiftwrightError):
    """A tool or dependency is missing, or a tool failed."""

    exit_code = 3


class DeviceError(ShiftwrightError):
    """The device or its transport reported a failure."""

    exit_code = 4


class TransportError(DeviceError):
    """The line to a board can't be opened, is gone, or brings no answers."""
