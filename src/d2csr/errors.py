"""Errors that a user can cause, and can mend.

Everything raised on purpose for a mistake in a file, a path or a setting derives from :class:`UserError`, whose text
says what is wrong, where, and what to do. The commands print that text alone; any other exception is a defect of this
package and keeps its traceback.
"""


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


class TrainingError(UserError):
    """A run that cannot go on: its loss is not finite, the memory or the disk is full."""
