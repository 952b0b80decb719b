"""The SQL of the lake's views: what a reader of the lake sees, as of an instant.

Every view has its columns even where its table was never written, so that a query needs no
special case on the first day.
"""

from __future__ import annotations

from feedrank_core.contracts.items import WITHDRAWN
from feedrank_core.contracts.topics import TOPICS
from feedrank_core.runtime.lake_schema import NOT_FROM_BUS, has_user, instant_column, table_schema

EVENT_KEYS = {"impressions": "event_id", "interactions": "event_id", "slates": "request_id"}
VERSION_KEYS = {"items": "item_id", "users": "user_id"}
USER_VERSIONS = "user_versions"
"""Every profile a reader ever had, for features as of a time."""
ITEM_TYPES = "item_types"
"""Each item's key, type and time as first published: an item does not change its type."""
VIEWS: dict[str, str] = {name: name for name in (*EVENT_KEYS, *VERSION_KEYS)}
"""The topic that each view reads."""
VIEWS |= {USER_VERSIONS: "users", ITEM_TYPES: "items"}


def view_sql(view: str, source: str, keys: str, as_of: str | None) -> str:
    """The SELECT of a view over its topic's registered table and that of the user keys.

    `as_of` is an ISO instant in UTC; rows from after it are not seen.
    """
    topic = VIEWS[view]
    rows = _rows(topic, source, keys, as_of)
    accepted = f"SELECT * FROM ({rows}) t{_accepted_by(topic, as_of)}"
    if view in EVENT_KEYS:
        # Whether an event is the first of its id does not hang on when one asks.
        once = _first_of_each(rows, EVENT_KEYS[view])
        return f"SELECT * EXCLUDE (date) FROM ({once}) t{_accepted_by(topic, as_of)}"
    if view == ITEM_TYPES:
        return _item_types(accepted)
    if view == "items":
        return f"SELECT * EXCLUDE (date) FROM ({_items(accepted)})"
    if view in VERSION_KEYS:
        accepted = _last_of_each(accepted, VERSION_KEYS[view])
    return f"SELECT * EXCLUDE (date) FROM ({accepted})"


def _rows(topic: str, source: str, keys: str, as_of: str | None) -> str:
    """Rows in the contract's columns; those of an erased reader find no key and are gone.

    A merged reader's rows are the other's from the merge on.
    """
    columns = [f.name for f in table_schema(topic)]
    select = ", ".join("k.user_id" if c == "user_key" else f"t.{c}" for c in columns)
    if not has_user(topic):
        return f"SELECT {select} FROM {source} t"
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


def _first_of_each(rows: str, key: str) -> str:
    """Deduplicated: a client that sends an event again does not act twice (decision 7).

    The first is the first record on the bus; imported records come after all of them.

    Ids are grouped by hash first, so that only repeated ones are sorted: the window over all
    columns of every row would hold the whole table.
    """
    return f"""
        WITH rows AS NOT MATERIALIZED ({rows}),
        repeated AS (SELECT hash({key}) AS h FROM rows GROUP BY 1 HAVING count(*) > 1)
        SELECT * FROM rows WHERE hash({key}) NOT IN (SELECT h FROM repeated)
        UNION ALL
        SELECT * FROM (
            SELECT * FROM rows WHERE hash({key}) IN (SELECT h FROM repeated)
            QUALIFY row_number() OVER (
                PARTITION BY {key} ORDER BY {_IN_BUS_ORDER}) = 1)
    """


_IN_BUS_ORDER = f"topic_partition = {NOT_FROM_BUS}, topic_offset, accepted_at, topic_partition"


def _last_of_each(rows: str, key: str) -> str:
    return f"""
        SELECT * FROM ({rows}) QUALIFY row_number() OVER (
            PARTITION BY {key} ORDER BY accepted_at DESC, topic_offset DESC) = 1
    """


def _items(rows: str) -> str:
    """Each item as last published; a withdrawal changes nothing of it but `active`."""
    latest = f"SELECT item_id, active, accepted_at, topic_offset FROM ({rows})"
    return f"""
        SELECT p.* REPLACE (p.active AND l.active AS active, f.item_type AS item_type)
        FROM ({_last_of_each(_published(rows), "item_id")}) p
        JOIN ({_last_of_each(latest, "item_id")}) l USING (item_id)
        JOIN ({_item_types(rows)}) f USING (item_id)
    """


def _item_types(rows: str) -> str:
    return f"""
        SELECT item_id, item_key, item_type, accepted_at AS published_at
        FROM ({_published(rows)}) QUALIFY row_number() OVER (
            PARTITION BY item_id ORDER BY accepted_at, topic_offset) = 1
    """


def _published(rows: str) -> str:
    return f"SELECT * FROM ({rows}) WHERE creator_id <> '{WITHDRAWN}'"


assert set(VIEWS.values()) <= set(TOPICS)
