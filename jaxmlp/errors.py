"""What a person can get wrong, as exceptions: each message says what was given, what was expected and what to do."""


class JaxmlpError(ValueError):
    """The base of the errors below. The command prints its message as one line and ends with `exit_status`."""

    exit_status = 2


class NetworkError(JaxmlpError):
    """A network that can't be: sizes, an activation or a loss that don't exist or don't go together."""


class DataError(JaxmlpError):
    """Data that can't be used: a missing, damaged or unsuitable file or array."""


class LabelError(DataError):
    """A label beyond the classes."""


class ExperimentError(JaxmlpError):
    """An experiment that can't be run: a setting out of range, or sizes that don't fit the data."""


class RunError(JaxmlpError):
    """A run folder that can't be written or read."""


class DivergedError(JaxmlpError):
    """Training came to a loss that is not a number."""

    exit_status = 1


class StoppedError(JaxmlpError):
    """Training was asked to stop before its end."""


class OutOfMemoryError(JaxmlpError):
    """The device, or this machine, has not enough memory for the experiment."""


class DeviceError(JaxmlpError):
    """No device to run on."""


class GradientError(JaxmlpError, AssertionError):
    """A gradient that fails its check; an AssertionError too, so that a test fails rather than errs."""

    exit_status = 1
