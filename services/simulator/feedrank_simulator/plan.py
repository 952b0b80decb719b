"""What a folder of history holds, kept there: a second run continues it and never mixes."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from feedrank_core.contracts.base import Message
from feedrank_core.runtime.atomic import write_atomically
from pydantic import ValidationError

from feedrank_simulator.recipe import Recipe
from feedrank_simulator.world import World

FILE = "history.json"
READERS_PER_BLOCK = 2048
"""A block of readers is the unit of chance and of work, so more workers change nothing."""


class PlanError(ValueError):
    """The folder holds another history, or none that can be read; the message names the file."""


class Plan(Message):
    """The arguments of a history. Equal plans make equal bytes."""

    world: Recipe
    categories: int
    creators: int
    seed: int
    sessions_per_user_day: float
    page_size: int
    readers_per_block: int

    @classmethod
    def of(cls, world: World, *, seed: int, sessions_per_user_day: float, page_size: int) -> Self:
        """The plan of this world's history."""
        return cls(
            world=Recipe.of(world),
            categories=world.topics.num_categories,
            creators=len(world.items.creator_fame_R),
            seed=seed,
            sessions_per_user_day=sessions_per_user_day,
            page_size=page_size,
            readers_per_block=READERS_PER_BLOCK,
        )

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The plan of a folder, None where there is none. Raises: PlanError, OSError."""
        path = folder / FILE
        if not path.exists():
            return None
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise PlanError(f"{path}: is no plan of a history: {error}") from error

    def keep(self, folder: Path) -> None:
        """Write plan and recipe where none are. Raises: OSError, PlanError at another plan."""
        held = self.read(folder)
        if held is None:
            self.world.write(folder)
            write_atomically(folder / FILE, (self.model_dump_json(indent=2) + "\n").encode())
        elif held != self:
            was, now = (_flat(plan) for plan in (held, self))
            differ = ", ".join(f"{n} {was[n]} (not {now[n]})" for n in now if was[n] != now[n])
            raise PlanError(
                f"{folder} holds a history with {differ}; name another folder or remove this one"
            )


def _flat(plan: Plan) -> dict[str, object]:
    facts = plan.model_dump(mode="json")
    return {f"world's {name}": value for name, value in facts.pop("world").items()} | facts
