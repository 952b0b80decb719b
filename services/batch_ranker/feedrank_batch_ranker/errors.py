"""The error that a person can act on."""

from __future__ import annotations


class RankerError(RuntimeError):
    """One line that names what is wrong and the remedy; the command ends with exit code 1."""
