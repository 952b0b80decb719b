"""Readers as clients of a running system: they read feeds, look down them, act and post.

What they do follows the world's true probabilities at that moment; time spent on items is told,
not waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import orjson
from feedrank_core.contracts.api import MAX_BATCH, MAX_FEED_LIMIT, BatchResult, FeedResponse
from feedrank_core.contracts.events import InteractionType, Surface
from pydantic import ValidationError

from feedrank_simulator.behaviour import Actions, look_depth
from feedrank_simulator.rendering import item_index
from feedrank_simulator.world import World

Clock = Callable[[], datetime]
Progress = Callable[[int, int], None]
"""Called with pages read and pages in all."""


class LiveError(RuntimeError):
    """The running system did not answer as its contract says; the message names the call."""


@dataclass(frozen=True)
class Page:
    """One feed as read. `reward` is the true expected number of clicks on the whole page.

    `unknown` counts items that are not of this world; they are looked at and never acted on.
    """

    user_id: str
    round: int
    request_id: str
    item_ids: tuple[str, ...]
    degraded: tuple[str, ...]
    looked_at: int
    reward: float
    clicks: int
    unknown: int


@dataclass
class LiveReport:
    """What was read and posted, in the order of the rounds."""

    pages: list[Page] = field(default_factory=list)
    posted: int = 0
    accepted: int = 0
    rejected: list[str] = field(default_factory=list)

    def reward_by_round(self) -> list[float]:
        """Mean true reward per page, a number a round."""
        rounds = sorted({page.round for page in self.pages})
        return [
            float(np.mean([page.reward for page in self.pages if page.round == r])) for r in rounds
        ]


@dataclass(frozen=True)
class Reader:
    """One reader of the world, its chance, and its clock."""

    world: World
    user: int
    rng: np.random.Generator
    clock: Clock

    @property
    def user_id(self) -> str:
        """The id the system knows the reader by."""
        return f"user-{self.user}"

    def look(self, feed: FeedResponse, round_number: int) -> tuple[Page, list[dict[str, Any]]]:
        """Look down a feed and act. Returns the page and the events to post."""
        now = self.clock()
        indices = [item_index(place.item_id) for place in feed.items]
        known = np.array([i is not None and i < self.world.num_items for i in indices], dtype=bool)
        items = np.array([i if k else 0 for i, k in zip(indices, known, strict=True)], dtype=int)
        users = np.full(len(items), self.user)
        position = np.array([place.position for place in feed.items], dtype=int)
        depth = int(look_depth(self.rng, 1, len(items))[0]) if len(items) else 0
        on_screen = np.arange(len(items)) < depth
        chances = self.world.click_probability(users, items, now, position) * known
        actions = self.world.act(self.rng, users, items, now, position)
        done = {kind: mask & on_screen & known for kind, mask in actions.done.items()}
        page = Page(
            user_id=feed.user_id,
            round=round_number,
            request_id=feed.request_id,
            item_ids=tuple(item.item_id for item in feed.items),
            degraded=tuple(str(reason) for reason in feed.degraded),
            looked_at=depth,
            reward=float(chances.sum()),
            clicks=int(done[InteractionType.CLICK].sum()),
            unknown=int((~known).sum()),
        )
        return page, _events(feed, depth, Actions(done, actions.dwell_s), now)


async def read_rounds(
    world: World,
    *,
    gateway_url: str,
    intake_url: str,
    users: Sequence[int],
    rounds: int,
    seed: int,
    limit: int = 20,
    concurrency: int = 8,
    clock: Clock = lambda: datetime.now(UTC),
    progress: Progress | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> LiveReport:
    """Every reader reads one page a round; a round's events are held before the next begins.

    Raises: LiveError, ValueError.
    """
    if not 1 <= limit <= MAX_FEED_LIMIT or rounds < 1 or concurrency < 1:
        raise ValueError(f"rounds and concurrency from 1, limit from 1 to {MAX_FEED_LIMIT}")
    report = LiveReport()
    chances = {user: np.random.default_rng([seed, 30, user]) for user in users}
    readers = [Reader(world, user, rng, clock) for user, rng in chances.items()]
    gate = asyncio.Semaphore(concurrency)
    async with httpx.AsyncClient(timeout=10.0, transport=transport) as client:

        async def read(reader: Reader, number: int) -> tuple[Page, list[dict[str, Any]]]:
            async with gate:
                feed = await get_feed(client, gateway_url, reader.user_id, limit=limit)
            page = reader.look(feed, number)
            report.pages.append(page[0])
            if progress:
                progress(len(report.pages), len(readers) * rounds)
            return page

        for number in range(rounds):
            read_pages = await asyncio.gather(*(read(reader, number) for reader in readers))
            for batch in batched([event for _, of_page in read_pages for event in of_page]):
                _count(report, batch, await post_events(client, intake_url, batch))
    report.pages.sort(key=lambda page: (page.round, page.user_id))
    return report


async def get_feed(
    client: httpx.AsyncClient, gateway_url: str, user_id: str, *, limit: int
) -> FeedResponse:
    """One page of a reader's feed. Raises: LiveError."""
    path = f"/v1/users/{quote(user_id, safe='')}/feed"
    url = gateway_url.rstrip("/") + path
    params = {"limit": limit, "surface": str(Surface.HOME)}
    response = await _call(client, "GET", url, params=params)
    try:
        return FeedResponse.model_validate_json(response.content)
    except ValidationError as error:
        raise LiveError(f"GET {url}: the answer is no feed: {error}") from error


async def post_events(
    client: httpx.AsyncClient, intake_url: str, events: list[dict[str, Any]]
) -> BatchResult:
    """Post events; when this returns the bus holds what was accepted. Raises: LiveError."""
    return await post_batch(client, intake_url.rstrip("/") + "/v1/events", {"events": events})


async def post_batch(client: httpx.AsyncClient, url: str, body: dict[str, Any]) -> BatchResult:
    """Post a batch of anything the intake takes. Raises: LiveError."""
    content = orjson.dumps(body)
    headers = {"content-type": "application/json"}
    response = await _call(client, "POST", url, content=content, headers=headers)
    try:
        return BatchResult.model_validate_json(response.content)
    except ValidationError as error:
        raise LiveError(f"POST {url}: the answer is no batch result: {error}") from error


async def _call(client: httpx.AsyncClient, method: str, url: str, **more: Any) -> httpx.Response:
    try:
        response = await client.request(method, url, **more)
    except httpx.HTTPError as error:
        reason = str(error) or type(error).__name__
        raise LiveError(f"{method} {url}: {reason}; is it up? See `feedrank status`") from error
    if response.is_success:
        return response
    raise LiveError(f"{method} {url}: {response.status_code} {response.text[:300]}")


def batched(events: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Half the members that the intake takes at once: well below its limit of bytes."""
    size = MAX_BATCH // 2
    return [events[start : start + size] for start in range(0, len(events), size)]


def _count(report: LiveReport, batch: list[dict[str, Any]], result: BatchResult) -> None:
    report.posted += len(batch)
    report.accepted += result.accepted
    report.rejected += [f"{batch[r.index]['event_id']}: {r.reason}" for r in result.rejected]


def _events(
    feed: FeedResponse, depth: int, actions: Actions, now: datetime
) -> list[dict[str, Any]]:
    """An impression for every place down to `depth`, then what was done there."""
    events = []
    for p, place in enumerate(feed.items[:depth]):
        common = _common(feed, place.item_id, place.position, now)
        events.append(_event(common, "impression"))
        for kind, mask in actions.done.items():
            if mask[p]:
                events.append(_event(common, kind))
                if kind is InteractionType.VIEW:
                    events[-1]["dwell_s"] = float(actions.dwell_s[p])
    return events


def _common(feed: FeedResponse, item_id: str, position: int, now: datetime) -> dict[str, Any]:
    return {
        "user_id": feed.user_id,
        "item_id": item_id,
        "request_id": feed.request_id,
        "session_id": feed.session_id,
        "position": position,
        "surface": str(Surface.HOME),
        "occurred_at": now.isoformat(),
    }


def _event(common: dict[str, Any], kind: str) -> dict[str, Any]:
    """The event id is derived, so that posting a page twice counts once."""
    event_id = f"{common['request_id']}-{common['position']}-{kind}"
    return {"event_id": event_id, "event_type": str(kind)} | common
