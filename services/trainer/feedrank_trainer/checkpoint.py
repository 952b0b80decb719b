"""What a training needs to go on after a crash: one file, there whole or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from feedrank_core.runtime.atomic import replacing

State = dict[str, Any]
"""Tensors, numbers, words, and dictionaries and lists of them."""
FORMAT = 3
"""Another number wherever a state holds something else than before."""


class CheckpointError(RuntimeError):
    """A checkpoint is of another training or cannot be read; the message names the remedy."""


@dataclass(frozen=True)
class Checkpoint:
    """Where a training leaves its state after each epoch.

    `made_for` is what it hangs on beside what `fit` adds: a state that was made for something else
    is refused, since it would end in weights that neither one gives.
    """

    path: Path
    made_for: dict[str, Any]

    def after(self, training: dict[str, Any]) -> Checkpoint:
        """The same for a training that begins where another one ended."""
        before = {f"an earlier training's {field}": value for field, value in training.items()}
        return Checkpoint(self.path, self.made_for | before)

    def save(self, state: State, made_for: dict[str, Any]) -> None:
        """Replace what is there. Raises: OSError."""
        self._clear()
        with replacing(self.path) as unfinished:
            torch.save({"made_for": self._fields(made_for), "state": state}, unfinished)

    def load(self, made_for: dict[str, Any]) -> State | None:
        """The state of an earlier try, None where there is none. Raises: CheckpointError."""
        if not self.path.exists():
            return None
        remedy = f"delete {self.path} to begin anew"
        try:
            if not is_zipfile(self.path):
                raise RuntimeError("no archive of torch")
            # Mapped, so that a large table is not held twice while it is copied.
            found = torch.load(self.path, map_location="cpu", mmap=True, weights_only=True)
            there, state = found["made_for"], found["state"]
        except Exception as error:
            # What torch raises is whatever the bytes have led it to.
            raise CheckpointError(f"{self.path} cannot be read: {remedy}") from error
        for field, wanted in self._fields(made_for).items():
            if there.get(field) != wanted:
                was, now = (f"{field} {value!r}" for value in (there.get(field), wanted))
                raise CheckpointError(
                    f"{self.path} was made with {was}, and this is {now}: set it back, or {remedy}"
                )
        return state

    def remove(self) -> None:
        """What it was kept for is done."""
        self._clear()
        self.path.unlink(missing_ok=True)

    def _fields(self, made_for: dict[str, Any]) -> dict[str, Any]:
        return self.made_for | made_for | {"format": FORMAT}

    def _clear(self) -> None:
        """What a killed process had not finished; it may be gigabytes."""
        for unfinished in self.path.parent.glob(f".{self.path.name}.*.unfinished"):
            unfinished.unlink()
