"""The parts of the show: whom to look at, what to like, and what changed."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
from feedrank_core.runtime.lake import Lake
from rich.markup import escape
from rich.table import Table

from feedrank_cli.errors import CommandError
from feedrank_cli.feed import facts, fetch, title
from feedrank_cli.invocation import invocation
from feedrank_cli.settings import Settings

PLACES = 20
SHARE_PLACES = 100
NUM_LIKES = 16
MAX_COMMON = 0.75
"""Two readers' feeds differ when at most this share of their places holds the same items."""
MIN_RISE = 0.05
"""Likes moved a feed where its share of the category grew by so much more than the feed of
a reader who liked nothing: what both gained is the retrained model's."""
BUNDLE_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Seen:
    """A reader's feed at one time, with what the catalogue says of its items."""

    user: str
    items: tuple[str, ...]
    known: dict[str, dict[str, Any]]
    bundle: str | None

    def share(self, category: str) -> float:
        """Share of the first SHARE_PLACES that the category holds."""
        held = [self.known.get(item, {}).get("category") for item in self.items]
        return held.count(category) / max(1, len(held))


def rise(category: str, before: Seen, after: Seen) -> float:
    """By how much the category's share of a reader's feed grew."""
    return after.share(category) - before.share(category)


def look(settings: Settings, user: str, *, not_bundle: str | None = None) -> Seen:
    """A reader's feed, once another bundle than `not_bundle` serves it."""
    deadline = time.monotonic() + BUNDLE_TIMEOUT_S
    page: dict[str, Any]
    while True:
        try:
            page = fetch(settings, user, SHARE_PLACES)
        except CommandError:
            if time.monotonic() > deadline:
                raise
            page = {"bundle": not_bundle, "items": []}
        if page["bundle"] != not_bundle:
            items = tuple(item["item_id"] for item in page["items"])
            return Seen(user, items, facts(settings, items), page["bundle"])
        if time.monotonic() > deadline:
            raise CommandError(
                f"The gateway still serves {not_bundle} after {BUNDLE_TIMEOUT_S:g} s.",
                f"Look at: {invocation()} logs gateway",
            )
        time.sleep(0.3)


def two_readers(settings: Settings) -> tuple[str, str]:
    """Two busy readers whose most liked categories differ."""
    with Lake(settings.place.lake).connect() as lake:
        rows: list[Any] = lake.execute(
            """
            WITH liked AS (
                SELECT n.user_id, i.category, count(*) AS likes
                FROM interactions n JOIN items i USING (item_id)
                WHERE n.event_type IN ('like', 'click', 'share', 'comment')
                GROUP BY ALL
            )
            SELECT user_id, arg_max(category, likes), max(likes) / sum(likes) AS focus
            FROM liked GROUP BY user_id HAVING sum(likes) BETWEEN 15 AND 200
            ORDER BY focus DESC, user_id LIMIT 200
            """
        ).fetchall()
    for user, category, _ in rows[1:]:
        if category != rows[0][1]:
            return rows[0][0], user
    raise CommandError("The simulated world has no two readers with different tastes.")


def rare_items(settings: Settings, seen: Seen) -> tuple[str, list[str]]:
    """A category that the feed hardly shows, and items of it that the reader has not seen."""
    shown = Counter(row["category"] for row in seen.known.values())
    with Lake(settings.place.lake).connect() as lake:
        catalogue: list[Any] = lake.execute(
            """
            SELECT category, list(item_id ORDER BY created_at DESC, item_id) FROM items
            WHERE active AND item_id NOT IN (SELECT item_id FROM impressions WHERE user_id = ?)
            GROUP BY category HAVING count(*) >= 30
            """,
            [seen.user],
        ).fetchall()
    if not catalogue:
        raise CommandError("No category has 30 items that this reader has not seen.")
    category, items = min(catalogue, key=lambda row: (shown[row[0]], -len(row[1]), row[0]))
    return category, items[:NUM_LIKES]


def like(settings: Settings, user: str, items: list[str]) -> None:
    """The reader sees and likes these items, through the public intake."""
    now = datetime.now(UTC)
    request = f"demo-{user}-{now:%Y%m%dT%H%M%S%f}"
    events = [
        {
            "event_id": f"{request}-{place}-{kind}",
            "event_type": kind,
            "user_id": user,
            "item_id": item,
            "request_id": request,
            "position": place,
            "occurred_at": now.isoformat(),
        }
        for place, item in enumerate(items)
        for kind in ("impression", "like")
    ]
    url = f"http://{settings.host}:{settings.ingestion_port}/v1/events"
    answer = httpx.post(url, json={"events": events}, timeout=30, trust_env=False)
    if answer.status_code != 202 or answer.json()["rejected"]:
        raise CommandError(f"The intake did not take the likes: {answer.text[:500]}")


def common_share(one: Seen, other: Seen) -> float:
    """Share of the first PLACES that both feeds hold."""
    return len({*one.items[:PLACES]} & {*other.items[:PLACES]}) / PLACES


def side_by_side(one: Seen, other: Seen, headings: tuple[str, str], mark: str = "") -> Table:
    """Two feeds; items of the category `mark` are set off."""
    view = Table()
    view.add_column("")
    for heading in headings:
        view.add_column(heading)
    for place in range(min(PLACES, max(len(one.items), len(other.items)))):
        view.add_row(str(place + 1), _cell(one, place, mark), _cell(other, place, mark))
    return view


def _cell(seen: Seen, place: int, mark: str) -> str:
    if place >= len(seen.items):
        return ""
    item = seen.items[place]
    category = seen.known.get(item, {}).get("category", "")
    text = escape(f"{category:<14.14} {title(item, seen.known, 30)}")
    return f"[bold green]* {text}[/]" if mark and category == mark else f"  {text}"
