"""What a world was made from, kept beside its history so that readers can live in it later."""

from __future__ import annotations

from pathlib import Path

from feedrank_core.contracts.base import Message, Timestamp
from pydantic import ValidationError

from feedrank_simulator.world import World

FILE = "world.json"


class RecipeError(ValueError):
    """There is no usable world.json; the message names the file."""


class Recipe(Message):
    """The arguments of a world. Equal recipes make equal worlds."""

    seed: int
    users: int
    items: int
    days: int
    end: Timestamp

    @classmethod
    def of(cls, world: World) -> Recipe:
        """The recipe of a world that has as many categories and creators as usual."""
        return cls(
            seed=world.seed,
            users=world.num_users,
            items=world.num_items,
            days=world.num_days,
            end=world.end,
        )

    def world(self) -> World:
        """Make the world. Raises: ValueError."""
        return World.make(self.seed, self.users, self.items, days=self.days, end=self.end)

    def write(self, folder: Path) -> None:
        """Keep it in `folder`. Raises: OSError."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_text(self.model_dump_json(indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Recipe:
        """The recipe in `folder`. Raises: RecipeError."""
        path = folder / FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error
        except ValidationError as error:
            raise RecipeError(f"{path}: is no recipe of a world: {error}") from error
