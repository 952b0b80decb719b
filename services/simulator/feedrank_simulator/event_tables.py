"""Sessions as the rest of the world knows them: slates, impressions and interactions.

Rows are in the order of acceptance. Texts that all events of a session share are made once and
taken for each event.
"""

# pyarrow.compute builds its functions at import, where pyright does not see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from feedrank_core.contracts.events import InteractionType, Surface
from feedrank_core.runtime.lake_schema import contract_schema

from feedrank_simulator.policy import SOURCES
from feedrank_simulator.rendering import instants, item_ids, joined, user_ids
from feedrank_simulator.sessions import Sessions

ACTIONS = tuple(InteractionType)
SLATE_DELAY_S = 0.02
"""Between serving a page and its slate's arrival."""


def slates_table(sessions: Sessions) -> pa.Table:
    """What was served, as the gateway would have logged it."""
    order = np.argsort(sessions.served_at_S, kind="stable")
    num = len(order)
    requests, session_ids = _request_ids(sessions)
    served_at = sessions.served_at_S[order]
    columns = {
        "schema_version": pa.repeat(pa.scalar(1), num),
        "request_id": requests.take(order),
        "session_id": session_ids.take(order),
        "user_id": user_ids(sessions.user_S[order]),
        "surface": pa.repeat(pa.scalar(str(Surface.HOME)), num),
        "served_at": instants(served_at),
        "arms_json": pa.repeat(pa.scalar("{}"), num),
        "degraded": pa.array([[]] * num, pa.list_(pa.string())),
        "features_json": pa.repeat(pa.scalar("{}"), num),
        "items_json": _places(sessions.item_SP[order], sessions.source_SP[order]),
        "accepted_at": instants(served_at + SLATE_DELAY_S),
    }
    return _in_order("slates", columns, num)


def impressions_table(sessions: Sessions, rng: np.random.Generator) -> pa.Table:
    """One row for every place that entered the screen."""
    rows, places = np.nonzero(sessions.on_screen_SP)
    happened = sessions.shown_at_SP[rows, places]
    kinds = np.zeros(len(rows), dtype=np.int8)
    return _events("impressions", ("impression",), sessions, rng, (rows, places, kinds, happened))


def interactions_table(sessions: Sessions, rng: np.random.Generator) -> pa.Table:
    """One row for every action; a view carries its dwell and is told when it is over."""
    found = []
    for kind, action in enumerate(ACTIONS):
        rows, places = np.nonzero(sessions.actions.done[action])
        if action is InteractionType.VIEW:
            happened = sessions.left_at_SP[rows, places]
        else:
            reached = (0.3 + 0.05 * kind) * sessions.actions.dwell_s[rows, places]
            happened = sessions.shown_at_SP[rows, places] + reached
        found.append((rows, places, np.full(len(rows), kind, dtype=np.int8), happened))
    rows, places, kinds, happened = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    names = tuple(str(action) for action in ACTIONS)
    return _events("interactions", names, sessions, rng, (rows, places, kinds, happened))


def _events(
    topic: str,
    names: tuple[str, ...],
    sessions: Sessions,
    rng: np.random.Generator,
    found: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> pa.Table:
    """Events in the order of acceptance. `found`: row, place, index in `names`, when."""
    accepted = found[3] + rng.uniform(0.05, 2.0, len(found[3]))
    order = np.argsort(accepted, kind="stable")
    rows, places, kinds, happened = (array[order] for array in found)
    requests, session_ids = _request_ids(sessions)
    requests = requests.take(rows)
    tails = pa.array([f"-{p}-{name}" for p in range(sessions.item_SP.shape[1]) for name in names])
    tail = tails.take(places * len(names) + kinds)
    columns = {
        "event_id": joined(requests, tail, separator=""),
        "user_id": user_ids(sessions.user_S).take(rows),
        "item_id": item_ids(sessions.item_SP[rows, places]),
        "request_id": requests,
        "session_id": session_ids.take(rows),
        "position": pa.array(places),
        "surface": pa.repeat(pa.scalar(str(Surface.HOME)), len(rows)),
        "occurred_at": instants(happened),
        "event_type": pa.array(names).take(kinds),
        "accepted_at": instants(accepted[order]),
    }
    if InteractionType.VIEW in names:
        viewed = kinds == names.index(InteractionType.VIEW)
        columns["dwell_s"] = pa.array(sessions.actions.dwell_s[rows, places], mask=~viewed)
    return _in_order(topic, columns, len(rows))


def _places(item_SP: np.ndarray, source_SP: np.ndarray) -> pa.Array:
    """The JSON of each page's places, up to the first that stayed empty."""
    filled = item_SP >= 0
    places = np.nonzero(filled)[1]
    tail = _place_tails(item_SP.shape[1]).take(places * len(SOURCES) + source_SP[filled])
    each = joined(pa.scalar('{"item_id":"'), item_ids(item_SP[filled]), tail, separator="")
    offsets = np.concatenate([[0], np.cumsum(filled.sum(axis=1))])
    pages = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), each)
    return joined(pa.scalar("["), pc.binary_join(pages, ","), pa.scalar("]"), separator="")


@lru_cache(maxsize=4)
def _place_tails(page_size: int) -> pa.Array:
    """What follows the item's id, by position and source."""
    return pa.array(
        [
            f'","position":{p},"source":"{source}","scores":{{}},"value":{1 / (1 + p):.4f},'
            '"propensity":null,"draw":null}'
            for p in range(page_size)
            for source in SOURCES
        ]
    )


def _request_ids(sessions: Sessions) -> tuple[pa.Array, pa.Array]:
    """Requests and sessions are one to one here. The seed keeps two worlds' events apart."""
    name = joined(
        pa.scalar(str(sessions.seed)),
        pc.cast(pa.array(sessions.user_S.astype(np.int64)), pa.string()),
        pc.cast(pa.array(sessions.number_S.astype(np.int64)), pa.string()),
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
