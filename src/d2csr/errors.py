"""Errors that a user can cause, and can mend.

Everything raised on purpose for a mistake in a file, a path or a setting derives from :class:`UserError`, whose text
says what is wrong, where, and what to do. The commands print that text alone; any other exception is a defect of this
package and keeps its traceback.
"""


def printable(text: str) -> str:
    """Return a text with its control characters escaped, line breaks excepted: names in files may hold any.

    A terminal obeys control characters, and marks of text direction show other letters than there are.
    """
    return "".join(
        char if char.isprintable() or char in "\n " else char.encode("unicode_escape").decode() for char in text
    )


class UserError(ValueError):
    """A mistake in the user's input: the message says what is wrong, where, and what to do.

    Args:
        message: the text.
        everywhere: of several processes that work together, each raises this error, so that one alone has to tell.
    """

    def __init__(self, message: str = "", *, everywhere: bool = False) -> None:
        super().__init__(message)
        self.everywhere = everywhere


class DataError(UserError):
    """A list, an image or a data folder that cannot be used as it is."""


class CheckpointError(UserError):
    """A checkpoint that cannot be read, or that does not fit what is asked of it."""


class ConfigError(UserError):
    """A setting with an impossible value, or two settings that exclude each other."""


class Stopped(Exception):  # noqa: N818 - it is what was asked for, not an error
    """A run ended early because a signal asked for it, and lost nothing; the message says how to go on.

    Attributes:
        signal: its number.
        status: the exit status that the process should have, as a shell gives it to one that the signal ended.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal
        self.status = 128 + signal


class TrainingError(UserError):
    """A run that cannot go on: its loss is not finite, the memory or the disk is full."""
