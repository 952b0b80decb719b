"""Files that hold secrets: their owner alone may read them, from the first byte on."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from feedrank_core.runtime.atomic import replacing

SECRET_BYTES = 32


def load_secret(path: Path) -> bytes:
    """The secret in this file, made by whoever comes first: all processes get the same."""
    if path.exists():
        return path.read_bytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    own = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    _create(own, secrets.token_bytes(SECRET_BYTES))
    try:
        os.link(own, path)
    except FileExistsError:
        pass
    finally:
        own.unlink()
    return path.read_bytes()


def write_secret(path: Path, content: bytes) -> None:
    """Replace a file by one that its owner alone may read, all or nothing. Raises: OSError."""
    with replacing(path) as unfinished:
        _create(unfinished, content)


def _create(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
