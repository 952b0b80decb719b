"""One session of many readers at once: a page, how far they look, what they do, and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from feedrank_simulator.behaviour import Actions, look_depth
from feedrank_simulator.world import World

GLANCE_S = 0.8
"""Time spent on an item that is on the screen and not viewed."""


@dataclass(frozen=True)
class Sessions:
    """Sessions in rows, places in columns; items are -1 in places that stayed empty.

    Units: Unix seconds. `shown_at_SP` is when a place entered the screen, `left_at_SP` when it
    left. `number_S` tells the sessions of one reader apart.
    """

    seed: int
    user_S: np.ndarray
    number_S: np.ndarray
    served_at_S: np.ndarray
    item_SP: np.ndarray
    source_SP: np.ndarray
    on_screen_SP: np.ndarray
    actions: Actions
    shown_at_SP: np.ndarray
    left_at_SP: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence[Sessions]) -> Sessions:
        """Sessions one after the other. Raises: ValueError where there are none."""
        arrays = {
            field.name: np.concatenate([getattr(part, field.name) for part in parts])
            for field in fields(cls)
            if field.name not in ("seed", "actions")
        }
        done = {
            kind: np.concatenate([part.actions.done[kind] for part in parts])
            for kind in parts[0].actions.done
        }
        dwell_s = np.concatenate([part.actions.dwell_s for part in parts])
        return cls(seed=parts[0].seed, actions=Actions(done, dwell_s), **arrays)

    @property
    def num_events(self) -> int:
        """Impressions and interactions."""
        return int(self.on_screen_SP.sum()) + sum(
            int(done.sum()) for done in self.actions.done.values()
        )

    @property
    def ended_at_S(self) -> np.ndarray:
        """When the reader put the page away."""
        return np.max(np.where(self.on_screen_SP, self.left_at_SP, 0.0), axis=1)


def play(
    world: World,
    rng: np.random.Generator,
    users: np.ndarray,
    numbers: np.ndarray,
    served_at: np.ndarray,
    pages: tuple[np.ndarray, np.ndarray],
) -> Sessions:
    """What readers do to their pages; every event ends by the end of the world or is left out."""
    item_SP, source_SP = pages
    page_size = item_SP.shape[1]
    position = np.arange(page_size)
    on_screen = (item_SP >= 0) & (position < look_depth(rng, len(users), page_size)[:, None])
    actions = world.act(
        rng, users[:, None], np.maximum(item_SP, 0), served_at[:, None], position[None, :]
    )
    spent = np.where(on_screen, np.maximum(GLANCE_S, actions.dwell_s), 0.0)
    left_at = served_at[:, None] + 0.3 + np.cumsum(spent, axis=1)
    on_screen &= left_at < world.end.timestamp() - 5.0
    done = {kind: mask & on_screen for kind, mask in actions.done.items()}
    return Sessions(
        seed=world.seed,
        user_S=users,
        number_S=numbers,
        served_at_S=served_at,
        item_SP=item_SP,
        source_SP=source_SP,
        on_screen_SP=on_screen,
        actions=Actions(done, actions.dwell_s),
        shown_at_SP=left_at - spent,
        left_at_SP=left_at,
    )
