"""Lines of whole numbers, a reader and then their items; errors name file and line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

MAX_ID = (1 << 63) - 1
MAX_DIGITS = len(str(MAX_ID))


class DataError(ValueError):
    """A file does not hold what its format says; the message begins with file and line."""


@dataclass(frozen=True)
class Lines:
    """What a file says, in its order. Shapes: user (A,), item (A,), users (U,), all int64.

    `users` also names those who have a line without items; `line` (U,) is where each stands.
    """

    user: np.ndarray
    item: np.ndarray
    users: np.ndarray
    line: np.ndarray


def read_lines(path: Path) -> Lines:
    """A reader's number and their items' numbers a line; blank lines are passed over.

    Raises: DataError for a missing or empty file, what is no whole number of 0 to MAX_ID, and a
    reader with two lines.
    """
    line_of: dict[int, int] = {}
    items: list[list[int]] = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                ids = [_number(word, path, number) for word in line.split()]
                if not ids:
                    continue
                user, *rest = ids
                if user in line_of:
                    raise DataError(
                        f"{path}:{number}: user {user} has line {line_of[user]} already"
                    )
                line_of[user] = number
                items.append(rest)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}") from error
    if not any(items):
        raise DataError(f"{path}: no user has an item")
    users = np.fromiter(line_of, np.int64, len(line_of))
    return Lines(
        np.repeat(users, [len(rest) for rest in items]),
        np.array([item for rest in items for item in rest], np.int64),
        users,
        np.fromiter(line_of.values(), np.int64, len(line_of)),
    )


def _number(word: str, path: Path, line: int) -> int:
    # isdecimal alone would take digits of other scripts.
    # A long one is more than Python turns into a number.
    is_number = word.isascii() and word.isdecimal() and len(word) <= MAX_DIGITS
    if not is_number or int(word) > MAX_ID:
        raise DataError(f"{path}:{line}: {word[:40]!r} is no whole number of 0 to {MAX_ID}")
    return int(word)
