"""One session of many readers at once: a page, how far they look, what they do, and when."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from feedrank_core.contracts.events import InteractionType, Surface

from feedrank_simulator.behaviour import Actions, look_depth
from feedrank_simulator.policy import SOURCES
from feedrank_simulator.rendering import contract_schema, instants, item_ids, joined, user_ids
from feedrank_simulator.world import World

GLANCE_S = 0.8
"""Time spent on an item that is on the screen and not viewed."""
ACTIONS = tuple(InteractionType)


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


def slates_table(sessions: Sessions, delay_s: float = 0.02) -> pa.Table:
    """What was served, as the gateway would have logged it."""
    items_SP = np.asarray(item_ids(sessions.item_SP.ravel())).reshape(sessions.item_SP.shape)
    sources = [f'"source":"{source}","scores":{{}},"value":' for source in SOURCES]
    page_size = sessions.item_SP.shape[1]
    tails = [f'{1 / (1 + p):.4f},"propensity":null,"draw":null}}' for p in range(page_size)]
    pages = []
    for items, kinds, filled in zip(
        items_SP.tolist(),
        sessions.source_SP.tolist(),
        (sessions.item_SP >= 0).sum(axis=1).tolist(),
        strict=True,
    ):
        places = (
            f'{{"item_id":"{items[p]}","position":{p},{sources[kinds[p]]}{tails[p]}'
            for p in range(filled)
        )
        pages.append("[" + ",".join(places) + "]")
    num = len(pages)
    requests, session_ids = _request_ids(sessions, np.arange(num))
    columns = {
        "schema_version": pa.repeat(pa.scalar(1), num),
        "request_id": requests,
        "session_id": session_ids,
        "user_id": user_ids(sessions.user_S),
        "surface": pa.repeat(pa.scalar(str(Surface.HOME)), num),
        "served_at": instants(sessions.served_at_S),
        "arms_json": pa.repeat(pa.scalar("{}"), num),
        "degraded": pa.array([[]] * num, pa.list_(pa.string())),
        "features_json": pa.repeat(pa.scalar("{}"), num),
        "items_json": pa.array(pages),
        "accepted_at": instants(sessions.served_at_S + delay_s),
    }
    return _in_order("slates", columns, num)


def impressions_table(sessions: Sessions, rng: np.random.Generator) -> pa.Table:
    """One row for every place that entered the screen."""
    rows, places = np.nonzero(sessions.on_screen_SP)
    columns = _events(sessions, rng, rows, places, sessions.shown_at_SP, kind="impression")
    return _in_order("impressions", columns, len(rows))


def interactions_table(sessions: Sessions, rng: np.random.Generator) -> pa.Table:
    """One row for every action; a view carries its dwell and is told when it is over."""
    tables = []
    for kind in ACTIONS:
        rows, places = np.nonzero(sessions.actions.done[kind])
        happened = sessions.left_at_SP
        if kind is not InteractionType.VIEW:
            reached = 0.3 + 0.05 * ACTIONS.index(kind)
            happened = sessions.shown_at_SP + reached * sessions.actions.dwell_s
        columns = _events(sessions, rng, rows, places, happened, kind=str(kind))
        if kind is InteractionType.VIEW:
            columns["dwell_s"] = pa.array(sessions.actions.dwell_s[rows, places])
        tables.append(_in_order("interactions", columns, len(rows)))
    return pa.concat_tables(tables)


def _events(
    sessions: Sessions,
    rng: np.random.Generator,
    rows: np.ndarray,
    places: np.ndarray,
    happened_SP: np.ndarray,
    *,
    kind: str,
) -> dict[str, pa.Array]:
    requests, session_ids = _request_ids(sessions, rows)
    happened = happened_SP[rows, places]
    num = len(rows)
    place_text = pc.cast(pa.array(places), pa.string())
    event_ids = joined(requests, place_text, pa.scalar(kind), separator="-")
    return {
        "event_id": event_ids,
        "user_id": user_ids(sessions.user_S[rows]),
        "item_id": item_ids(sessions.item_SP[rows, places]),
        "request_id": requests,
        "session_id": session_ids,
        "position": pa.array(places),
        "surface": pa.repeat(pa.scalar(str(Surface.HOME)), num),
        "occurred_at": instants(happened),
        "event_type": pa.repeat(pa.scalar(kind), num),
        "accepted_at": instants(happened + rng.uniform(0.05, 2.0, num)),
    }


def _request_ids(sessions: Sessions, rows: np.ndarray) -> tuple[pa.Array, pa.Array]:
    """Requests and sessions are one to one here. The seed keeps two worlds' events apart."""
    name = joined(
        pa.scalar(str(sessions.seed)),
        pc.cast(pa.array(sessions.user_S[rows].astype(np.int64)), pa.string()),
        pc.cast(pa.array(sessions.number_S[rows].astype(np.int64)), pa.string()),
        separator="-",
    )
    return (
        joined(pa.scalar("r"), name, separator=""),
        joined(pa.scalar("s"), name, separator=""),
    )


def _in_order(topic: str, columns: dict[str, pa.Array], num: int) -> pa.Table:
    """Columns in the contract's order; those not given are null."""
    schema = contract_schema(topic)
    null = {f.name: pa.nulls(num, f.type) for f in schema if f.name not in columns}
    filled = columns | null
    return pa.table([filled[f.name].cast(f.type) for f in schema], schema=schema)
