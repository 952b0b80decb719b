"""Large arrays on disk, mapped into every process that needs them: all share one copy."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Mapped:
    """A dataclass whose arrays lie in files: small enough to hand to another process."""

    skeleton: Any

    @classmethod
    def save(cls, value: Any, folder: Path) -> Mapped:
        """Write every array of `value`, and of the dataclasses within it, below `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        return cls(_saved(value, folder, "array"))

    def open(self) -> Any:
        """The dataclass again, its arrays read-only and read from disk as they are touched."""
        return _opened(self.skeleton)


def _saved(value: Any, folder: Path, name: str) -> Any:
    if isinstance(value, np.ndarray):
        path = folder / f"{name}.npy"
        np.save(path, value)
        return path
    if is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in fields(value)]
        return replace(
            value, **{n: _saved(getattr(value, n), folder, f"{name}.{n}") for n in names}
        )
    return value


def _opened(value: Any) -> Any:
    if isinstance(value, Path):
        return np.asarray(np.load(value, mmap_mode="r"))
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: _opened(getattr(value, f.name)) for f in fields(value)})
    return value
