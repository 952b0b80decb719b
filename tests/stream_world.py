"""A log for the stream's state, and what it must come to, folded the plain way."""

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from feedrank_core.contracts.events import Impression, Interaction, InteractionType
from feedrank_core.contracts.features import COUNTER_COLUMNS, HISTORY_LENGTH, increments, is_engaged
from feedrank_core.contracts.ids import item_key
from feedrank_core.contracts.items import Item, ItemType
from feedrank_core.contracts.topics import IMPRESSIONS, INTERACTIONS, ITEMS, USERS
from feedrank_core.contracts.users import Platform, User
from feedrank_core.features.counters import CounterState, fold

START = datetime(2026, 1, 1, tzinfo=UTC)
TOPIC_OF = {Impression: IMPRESSIONS, Interaction: INTERACTIONS, Item: ITEMS, User: USERS}


def drawn_log(rng: random.Random, num_messages: int, *, num_users: int = 6, num_items: int = 8):
    """Messages in an order of arrival that is not that of acceptance, with ids sent twice."""
    messages: list = []
    for n in range(num_messages):
        at = START + timedelta(seconds=rng.randrange(0, 10**6), microseconds=rng.randrange(10**6))
        user, item = f"u{rng.randrange(num_users)}", f"i{rng.randrange(num_items)}"
        common = {"user_id": user, "item_id": item, "occurred_at": at, "accepted_at": at}
        kind = rng.random()
        if kind < 0.05:
            messages.append(an_item(item, at, rng))
        elif kind < 0.08:
            platform = rng.choice(list(Platform))
            messages.append(User(user_id=user, country="NL", platform=platform, accepted_at=at))
        elif kind < 0.4:
            messages.append(Impression(event_id=f"e{n}", **common))
        else:
            action = rng.choice(list(InteractionType))
            dwell_s = rng.uniform(0, 40) if action is InteractionType.VIEW else None
            event = Interaction(event_id=f"e{n}", event_type=action, dwell_s=dwell_s, **common)
            messages.append(event)
            if rng.random() < 0.1:
                messages.append(event)
    return messages


def an_item(item_id: str, at: datetime, rng: random.Random) -> Item:
    return Item(
        item_id=item_id,
        # An item does not change its type.
        item_type=list(ItemType)[item_key(item_id) % 3],
        creator_id=f"c{rng.randrange(3)}",
        category=rng.choice(["music", "news"]),
        created_at=START,
        active=rng.random() < 0.9,
        accepted_at=at,
    )


@dataclass
class Plain:
    """Counters and histories of readers and items, by id."""

    users: dict[str, CounterState] = field(default_factory=dict)
    items: dict[str, CounterState] = field(default_factory=dict)
    histories: dict[str, list[tuple]] = field(default_factory=dict)


def plainly(messages: list) -> Plain:
    """The whole log by its definition: event by event, in the order of acceptance."""
    items = sorted((m for m in messages if isinstance(m, Item)), key=lambda m: m.accepted_at)
    first = {}
    for item in items:
        first.setdefault(item.item_id, item)
    events, known = [], set()
    for message in messages:
        if not isinstance(message, Item | User) and message.event_id not in known:
            known.add(message.event_id)
            events.append(message)
    plain = Plain()
    for event in sorted(events, key=lambda e: (e.accepted_at, e.event_id)):
        published = first.get(event.item_id)
        by_then = published is not None and published.accepted_at <= event.accepted_at
        item_type = published.item_type if published is not None and by_then else None
        done = isinstance(event, Interaction)
        action, dwell_s = (event.event_type, event.dwell_s) if done else (None, None)
        moved = increments(action, dwell_s, item_type)
        for states, of in ((plain.users, event.user_id), (plain.items, event.item_id)):
            states[of] = fold(states.get(of, CounterState()), event.accepted_at, moved)
        if action is not None and is_engaged(action, dwell_s, item_type):
            history = plain.histories.setdefault(event.user_id, [])
            history.append((event.accepted_at, item_key(event.item_id), str(action)))
            del history[:-HISTORY_LENGTH]
    return plain


def as_columns(state: CounterState) -> list[float]:
    return [state.values.get(name, 0.0) for name in COUNTER_COLUMNS]
