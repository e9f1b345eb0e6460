"""What can go wrong outside the code, each with the exit code that the README documents.

Every message has one form: ``what: file: why; try: one command``. `run.launch` prints it behind ``error:`` and exits;
an outside program that calls the package can catch `UserError` (a ValueError).
"""

# Ended by a signal; the same command resumes from what is stored. A signal arrives as KeyboardInterrupt, which no
# `except Exception` on the way can take for something else.
STOPPED = 75


class UserError(ValueError):
    """A mistake or mishap outside the code: one line for the user, no traceback."""

    exit_code = 1

    def __init__(self, what: str, file: object = "", why: str = "", attempt: str = ""):
        """Joins what happened, where, why (found and expected) and the command that helps into one line."""
        parts = [part for part in (what, str(file), why) if part]
        line = ": ".join(parts) + (f"; try: {attempt}" if attempt else "")
        # A file name may hold bytes that are no text, which no log or terminal would print.
        super().__init__(" ".join(line.split()).encode(errors="backslashreplace").decode())


class PeerError(UserError):
    """Another process of this run has ended, and has said why itself."""


class ConfigError(UserError):
    """A key, value or flag that the configuration does not know or allow."""

    exit_code = 2


class DataError(UserError):
    """A video, label file or data folder that is missing, damaged or does not fit."""

    exit_code = 3


class WeightsError(UserError):
    """A checkpoint or tokenizer that is missing, damaged or of another shape."""

    exit_code = 4


class DiskError(UserError):
    """A file that could not be written: disk full, quota, permission."""

    exit_code = 5


class MemoryShortage(UserError):
    """The device or the machine ran out of memory."""

    exit_code = 6


class HangError(UserError):
    """A decoder that never came back."""

    exit_code = 7


class NonFiniteError(UserError):
    """NaN or infinity where a score or loss should be."""

    exit_code = 8
