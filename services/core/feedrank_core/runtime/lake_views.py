"""The SQL of the lake's views: what a reader of the lake sees, as of an instant.

Every view has its columns even where its table was never written, so that a query needs no
special case on the first day.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from feedrank_core.contracts.items import WITHDRAWN
from feedrank_core.contracts.topics import TOPICS
from feedrank_core.runtime.lake_schema import (
    NOT_FROM_BUS,
    USER_KEYS,
    has_user,
    instant_column,
    table_schema,
)

EVENT_KEYS = {"impressions": "event_id", "interactions": "event_id", "slates": "request_id"}
VERSION_KEYS = {"items": "item_id", "users": "user_id"}
USER_VERSIONS = "user_versions"
"""Every profile a reader ever had, for features as of a time."""
ITEM_TYPES = "item_types"
"""Each item's key, type and time as first published: an item does not change its type."""
VIEWS: dict[str, str] = {name: name for name in (*EVENT_KEYS, *VERSION_KEYS)}
"""The topic that each view reads."""
VIEWS |= {USER_VERSIONS: "users", ITEM_TYPES: "items"}


def registered(table: str) -> str:
    """The name under which an engine holds a table of the lake for the views to read."""
    return f"_{table}"


def view_statements(
    as_of: datetime | None, sources: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The SELECT of each view, in what DuckDB's dialect shares with others.

    Rows from after `as_of` (aware) are not seen. `sources` names the tables of topics that are
    held under another name than `registered` gives.
    """
    if as_of is not None and as_of.tzinfo is None:
        raise ValueError("as_of: has no time zone")
    moment = None if as_of is None else as_of.astimezone(UTC).isoformat()
    held = {topic: registered(topic) for topic in VIEWS.values()} | dict(sources or {})
    return {view: _select(view, held[topic], moment) for view, topic in VIEWS.items()}


def _select(view: str, source: str, as_of: str | None) -> str:
    topic = VIEWS[view]
    columns = ["user_id" if c == "user_key" else c for c in table_schema(topic).names]
    kept = ", ".join(c for c in columns if c != "date")
    rows = _rows(topic, source, as_of)
    accepted = f"SELECT * FROM ({rows}) t{_accepted_by(topic, as_of)}"
    if view in EVENT_KEYS:
        # Whether an event is the first of its id does not hang on when one asks.
        once = _one_of_each(rows, EVENT_KEYS[view], _IN_BUS_ORDER, columns)
        return f"SELECT {kept} FROM ({once}) t{_accepted_by(topic, as_of)}"
    if view == ITEM_TYPES:
        return _item_types(accepted)
    if view == "items":
        return _items(accepted, columns, kept)
    if view in VERSION_KEYS:
        accepted = _one_of_each(accepted, VERSION_KEYS[view], _LATEST_FIRST, columns)
    return f"SELECT {kept} FROM ({accepted}) t"


def _rows(topic: str, source: str, as_of: str | None) -> str:
    """Rows in the contract's columns; those of an erased reader find no key and are gone.

    A merged reader's rows are the other's from the merge on.
    """
    columns = [f.name for f in table_schema(topic)]
    select = ", ".join("k.user_id" if c == "user_key" else f"t.{c}" for c in columns)
    if not has_user(topic):
        return f"SELECT {select} FROM {source} t"
    keys = registered(USER_KEYS)
    joined = f"FROM {source} t JOIN {keys} k ON k.user_key = t.user_key AND {_valid(as_of)}"
    if topic != "users":
        return f"SELECT {select} {joined}"
    # Of a merged reader's profile only what the other never said of themselves.
    own = "(k.since IS NULL OR t.accepted_at > k.since)"
    said = f"SELECT k.user_id, t.accepted_at, t.date {joined} WHERE {own}"
    owners = f"SELECT user_id FROM ({said}) t{_accepted_by(topic, as_of)}"
    return f"SELECT {select} {joined} WHERE {own} OR k.user_id NOT IN ({owners})"


def _valid(as_of: str | None) -> str:
    """The condition under which a key is its reader's at an instant, or now."""
    if as_of is None:
        return "k.until IS NULL"
    moment = f"TIMESTAMPTZ '{as_of}'"
    return f"(k.since IS NULL OR k.since <= {moment}) AND (k.until IS NULL OR k.until > {moment})"


def _accepted_by(topic: str, as_of: str | None) -> str:
    if as_of is None:
        return ""
    moment = f"TIMESTAMPTZ '{as_of}'"
    return f" WHERE t.{instant_column(topic)} <= {moment} AND t.date <= DATE '{as_of[:10]}'"


_IN_BUS_ORDER = f"topic_partition = {NOT_FROM_BUS}, topic_offset, accepted_at, topic_partition"
"""An event counts by its first record on the bus; imports come after all of them (decision 7)."""
_LATEST_FIRST = "accepted_at DESC, topic_offset DESC"
_EARLIEST_FIRST = "accepted_at, topic_offset"


def _one_of_each(rows: str, key: str, order: str, columns: list[str]) -> str:
    """The first row of each key in an order.

    Keys are grouped by hash first, so that only repeated ones are sorted: the window over all
    columns of every row would hold the whole table. The sides of the FULL JOIN never meet, and it
    is no UNION ALL: where a long result of one is read as it comes, DuckDB waits for the reader
    before there is anything to read, and for ever (duckdb#22215).
    """
    repeated = f"SELECT hash({key}) AS h FROM ({rows}) r GROUP BY hash({key}) HAVING count(*) > 1"
    select = ", ".join(columns)
    either = ", ".join(f"coalesce(a.{c}, b.{c}) AS {c}" for c in columns)
    return f"""
        SELECT {either} FROM (
            SELECT {select}, hash({key}) AS h FROM ({rows}) s WHERE hash({key}) NOT IN ({repeated})
        ) a FULL JOIN (
            SELECT {select}, hash({key}) AS h FROM (
                SELECT *, row_number() OVER (PARTITION BY {key} ORDER BY {order}) AS nth
                FROM ({rows}) s WHERE hash({key}) IN ({repeated})
            ) s WHERE nth = 1
        ) b ON a.h = b.h
    """


def _items(rows: str, columns: list[str], kept: str) -> str:
    """Each item as last published; a withdrawal changes nothing of it but `active`."""
    published = _one_of_each(_published(rows), "item_id", _LATEST_FIRST, columns)
    said = _one_of_each(rows, "item_id", _LATEST_FIRST, ["item_id", "active"])
    select = ", ".join(_ITEM_COLUMNS.get(name, f"p.{name}") for name in kept.split(", "))
    return f"""
        SELECT {select} FROM ({published}) p
        JOIN ({said}) l ON l.item_id = p.item_id
        JOIN ({_item_types(rows)}) f ON f.item_id = p.item_id
    """


_ITEM_COLUMNS = {"active": "p.active AND l.active AS active", "item_type": "f.item_type"}


def _item_types(rows: str) -> str:
    columns = ["item_id", "item_key", "item_type", "accepted_at"]
    first = _one_of_each(_published(rows), "item_id", _EARLIEST_FIRST, columns)
    return f"SELECT item_id, item_key, item_type, accepted_at AS published_at FROM ({first}) t"


def _published(rows: str) -> str:
    return f"SELECT * FROM ({rows}) t WHERE creator_id <> '{WITHDRAWN}'"


assert set(VIEWS.values()) <= set(TOPICS)
