"""What a command says when it cannot do its work: the fact, and what to do about it."""

from __future__ import annotations


class CommandError(Exception):
    """Ends the command with exit code `code`; shown without a traceback."""

    def __init__(self, message: str, remedy: str = "", *, code: int = 1) -> None:
        super().__init__(message)
        self.remedy = remedy
        self.code = code
