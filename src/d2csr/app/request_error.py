"""The error for a request that the app refuses."""

from __future__ import annotations

from d2csr.errors import UserError


class RequestError(UserError):
    """A request that is refused; the message is shown on the page.

    Args:
        message: what is wrong, and what to do.
        status: of the HTTP response.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
