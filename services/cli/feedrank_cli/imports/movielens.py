"""MovieLens 100K, in RecBole's files (typed headers) or the original u.data, u.item, u.user.

Every rating is an impression; from 4 on it is a like too, with the same request_id. What
MovieLens does not know is made up in a fixed way: the creator is the studio of the film's decade,
the country is US, the platform unknown. It is history, so it is accepted when it occurred.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from feedrank_core.contracts.events import Impression, Interaction
from feedrank_core.contracts.items import Item
from feedrank_core.contracts.users import AgeBand, User
from pydantic import ValidationError

from feedrank_cli.errors import CommandError
from feedrank_cli.imports.landing import CHUNK_ROWS, Landing, digest, existing

HELP = "MovieLens 100K: a folder with ml-100k.{inter,item,user} or u.{data,item,user}"
LIKE_FROM = 4.0
GENRES = [
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
]
"""The 19 flags at the end of a u.item line, in the order of the data set's u.genre."""
AGE_BANDS = (
    (18, AgeBand.UNDER_18),
    (25, AgeBand.FROM_18),
    (35, AgeBand.FROM_25),
    (45, AgeBand.FROM_35),
    (55, AgeBand.FROM_45),
)
Line = tuple[int, str]


@dataclass(frozen=True)
class Layout:
    """Names of the three files, what separates fields, and whether a header comes first."""

    ratings: str
    items: str
    users: str
    header: bool
    separator: str
    item: Callable[[list[str]], dict[str, Any]]


def age_band(age: int) -> AgeBand:
    """The band of an age in years."""
    return next((band for limit, band in AGE_BANDS if age < limit), AgeBand.FROM_55)


def bring(path: Path, landing: Landing) -> None:
    """Items, readers and ratings; an unreadable line is refused and the rest comes in."""
    folder = existing(path)
    layout = next((lay for lay in LAYOUTS if (folder / lay.ratings).exists()), None)
    if layout is None:
        names = " or ".join(lay.ratings for lay in LAYOUTS)
        raise CommandError(f"{folder} holds no {names}.", "Unpack MovieLens 100K there.", code=2)
    first: dict[str, datetime] = {}
    events = list(_rows(folder / layout.ratings, layout, landing, _rating))
    for user, _, _, at in events:
        first[user] = min(at, first.get(user, at))
    start = min(first.values(), default=datetime(1997, 9, 1, tzinfo=UTC))
    items = _rows(folder / layout.items, layout, landing, lambda f: _item(layout.item(f), start))
    _land(landing, "items", list(items), folder / layout.items)
    users = _rows(folder / layout.users, layout, landing, lambda f: _user(f, first, start))
    _land(landing, "users", list(users), folder / layout.users)
    source = folder / layout.ratings
    events.sort(key=lambda event: event[3])
    _land(landing, "impressions", [_impression(*e) for e in events], source)
    _land(landing, "interactions", [_like(*e) for e in events if e[2] >= LIKE_FROM], source)


def _rows(
    path: Path, layout: Layout, landing: Landing, parse: Callable[[list[str]], Any]
) -> Iterator[Any]:
    separator = "\t" if path.name in (layout.ratings,) else layout.separator
    text = existing(path).read_bytes()
    try:
        lines = text.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        lines = text.decode("latin-1").splitlines()
    for number, line in enumerate(lines, start=1):
        if (layout.header and number == 1) or not line.strip():
            continue
        try:
            yield parse(line.split(separator))
        except ValidationError as error:
            why = error.errors()[0]
            landing.reject(path, number, f"{why['loc'][0]}: {why['msg']}", line)
        except (ValueError, IndexError) as error:
            landing.reject(path, number, str(error), line)


def _land(landing: Landing, topic: str, rows: list[dict[str, Any]], file: Path) -> None:
    source = digest(file)
    for chunk, start in enumerate(range(0, len(rows), CHUNK_ROWS)):
        landing.to_lake(topic, rows[start : start + CHUNK_ROWS], source=source, chunk=chunk)


def _rating(fields: list[str]) -> tuple[str, str, float, datetime]:
    user, item, rating, at = fields[:4]
    if not 0.5 <= float(rating) <= 5:
        raise ValueError(f"rating: {rating} is not between 0.5 and 5")
    return user, item, float(rating), datetime.fromtimestamp(float(at), tz=UTC)


def _impression(user: str, item: str, _rating: float, at: datetime) -> dict[str, Any]:
    return Impression(
        event_id=f"ml-{user}-{item}-shown",
        user_id=user,
        item_id=item,
        request_id=f"ml-{user}-{item}",
        occurred_at=at,
        accepted_at=at,
    ).model_dump()


def _like(user: str, item: str, _rating: float, at: datetime) -> dict[str, Any]:
    return Interaction.model_validate(
        {
            "event_id": f"ml-{user}-{item}-like",
            "event_type": "like",
            "user_id": user,
            "item_id": item,
            "request_id": f"ml-{user}-{item}",
            "occurred_at": at,
            "accepted_at": at,
        }
    ).model_dump()


def _user(fields: list[str], first: dict[str, datetime], start: datetime) -> dict[str, Any]:
    user = fields[0]
    return User(
        user_id=user,
        country="US",
        age_band=age_band(int(fields[1])),
        accepted_at=first.get(user, start),
    ).model_dump()


def _item(facts: dict[str, Any], start: datetime) -> dict[str, Any]:
    year, genres = facts["year"], tuple(facts["genres"])
    published, studio = start, "studio-unknown"
    if year is not None and 1880 <= year <= start.year:
        published, studio = datetime(year, 1, 1, tzinfo=UTC), f"studio-{year // 10 * 10}s"
    return Item.model_validate(
        {
            "item_id": facts["item_id"],
            "item_type": "video",
            "creator_id": studio,
            "category": genres[0] if genres else "unknown",
            "tags": genres,
            "language": "und",
            "text": facts["title"],
            "created_at": published,
            "accepted_at": published,
        }
    ).model_dump()


def _atomic_item(fields: list[str]) -> dict[str, Any]:
    item_id, title, year, genres = fields[:4]
    number = int(year) if year.isdecimal() else None
    return {"item_id": item_id, "title": title, "year": number, "genres": genres.split()}


def _original_item(fields: list[str]) -> dict[str, Any]:
    if len(fields) != 5 + len(GENRES):
        raise ValueError(f"{len(fields)} fields instead of {5 + len(GENRES)}")
    year = re.search(r"(\d{4})$", fields[2])
    return {
        "item_id": fields[0],
        "title": re.sub(r"\s*\(\d{4}\)$", "", fields[1]),
        "year": int(year[1]) if year else None,
        "genres": [name for name, flag in zip(GENRES, fields[5:], strict=True) if flag == "1"],
    }


LAYOUTS = (
    Layout("ml-100k.inter", "ml-100k.item", "ml-100k.user", True, "\t", _atomic_item),
    Layout("u.data", "u.item", "u.user", False, "|", _original_item),
)
