"""MovieLens 100K, in RecBole's files (typed headers) or the original u.data, u.item, u.user.

Every rating is an impression; from 4 on it is a like too, with the same request_id. What
MovieLens does not know is made up in a fixed way: the creator is the studio of the film's decade,
the country is US, the platform unknown. It is history, so it is accepted when it occurred.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from feedrank_core.contracts.users import AgeBand

from feedrank_cli.errors import CommandError
from feedrank_cli.imports.pieces import ROWS_AT_ONCE, Piece, Refusal, Row, Source
from feedrank_cli.imports.values import instant, number, whole

HELP = "MovieLens 100K: a folder with ml-100k.{inter,item,user} or u.{data,item,user}"
ROUTES = ("lake",)
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
Reading = Callable[[list[str]], dict[str, dict[str, Any]]]
"""A line's fields to the rows it makes, by topic. Raises: ValueError naming the field."""


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


def sources(path: Path, topic: str | None) -> list[Source]:
    """Items, readers and ratings. Raises: CommandError."""
    if not path.exists():
        raise CommandError(f"{path} does not exist.", "Give the folder of the data.", code=2)
    layout = next((lay for lay in LAYOUTS if (path / lay.ratings).exists()), None)
    if layout is None:
        names = " or ".join(lay.ratings for lay in LAYOUTS)
        raise CommandError(f"{path} holds no {names}.", "Unpack MovieLens 100K there.", code=2)
    begins = Beginnings(path / layout.ratings, layout)
    readings: dict[str, tuple[str, Reading]] = {
        layout.items: ("items", lambda fields: _item(layout.item(fields), begins.start)),
        layout.users: ("users", lambda fields: _user(fields, begins)),
        layout.ratings: ("impressions", _rating),
    }
    found: list[Source] = []
    for name, (known, reading) in readings.items():
        file = path / name
        if not file.exists():
            raise CommandError(f"{file} does not exist.", "Unpack MovieLens 100K there.", code=2)
        separator = "\t" if name == layout.ratings else layout.separator
        size = file.stat().st_size
        found.append(Lines(file, size, known, layout.header, separator, reading))
    return found


@dataclass(frozen=True)
class Lines(Source):
    """One of the three files, whose lines are rows of one or two topics; `size` counts bytes."""

    path: Path
    size: int
    topic: str | None
    header: bool
    separator: str
    reading: Reading
    schema: None = None

    def read(self, start: int, *, columns: frozenset[str] | None) -> Iterator[Piece]:
        """Lines behind `start`; one that says nothing readable is broken, and the rest goes on."""
        piece, number = Piece(0, 0), 0
        for number, line in _numbered(self.path):
            piece.advance += len(line)
            text = _text(line)
            if number <= start or (self.header and number == 1) or not text:
                continue
            try:
                for topic, values in self.reading(text.split(self.separator)).items():
                    piece.rows.append(Row(number, values, topic))
            except ValueError as error:
                piece.broken.append(Refusal(number, str(error), text))
            if len(piece.rows) >= ROWS_AT_ONCE:
                piece.end = number
                yield piece
                piece = Piece(0, 0)
        piece.end = max(number, start)
        yield piece


@dataclass(frozen=True)
class Beginnings:
    """When each reader and the whole log began: one pass over the ratings, once it is needed."""

    path: Path
    layout: Layout

    @cached_property
    def first(self) -> dict[str, datetime]:
        """By reader, the time of the first rating."""
        first: dict[str, datetime] = {}
        for _, line in _numbered(self.path):
            with contextlib.suppress(ValueError):
                impression = _rating(_text(line).split("\t"))["impressions"]
                user, at = impression["user_id"], impression["occurred_at"]
                first[user] = min(at, first.get(user, at))
        return first

    @cached_property
    def start(self) -> datetime:
        """The first rating of all."""
        return min(self.first.values(), default=datetime(1997, 9, 1, tzinfo=UTC))


def _numbered(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as file:
            yield from enumerate(file, start=1)
    except OSError as error:
        raise CommandError(f"{path} cannot be read on: {error}.") from error


def _text(line: bytes) -> str:
    """UTF-8 in RecBole's files; the original ones are Latin-1."""
    try:
        return line.decode("utf-8").strip("\r\n")
    except UnicodeDecodeError:
        return line.decode("latin-1").strip("\r\n")


def _first(fields: list[str], *names: str) -> list[str]:
    """The leading fields, which are called so. Raises: ValueError naming one that is missing."""
    if len(fields) < len(names):
        raise ValueError(f"{names[len(fields)]}: is missing")
    return fields[: len(names)]


@contextlib.contextmanager
def _naming(field: str) -> Iterator[None]:
    """Say whose value a ValueError is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from None


def _rating(fields: list[str]) -> dict[str, dict[str, Any]]:
    """An impression, and a like where the rating is one."""
    user, item, stars, unix_s = _first(fields, "user_id", "item_id", "rating", "timestamp")
    with _naming("rating"):
        rating = number(stars)
        if not 0.5 <= rating <= 5:
            raise ValueError(f"{stars} is not between 0.5 and 5")
    with _naming("timestamp"):
        at = instant(unix_s, "unix_s", None)
    event = {
        "user_id": user,
        "item_id": item,
        "request_id": f"ml-{user}-{item}",
        "occurred_at": at,
        "accepted_at": at,
    }
    rows = {"impressions": event | {"event_id": f"ml-{user}-{item}-shown"}}
    if rating >= LIKE_FROM:
        rows["interactions"] = event | {"event_id": f"ml-{user}-{item}-like", "event_type": "like"}
    return rows


def _user(fields: list[str], begins: Beginnings) -> dict[str, dict[str, Any]]:
    user, years = _first(fields, "user_id", "age")
    with _naming("age"):
        age = whole(years)
        if age < 0:
            raise ValueError(f"{age} is below 0")
    profile = {
        "user_id": user,
        "country": "US",
        "age_band": age_band(age),
        "accepted_at": begins.first.get(user, begins.start),
    }
    return {"users": profile}


def _item(facts: dict[str, Any], start: datetime) -> dict[str, dict[str, Any]]:
    year, genres = facts["year"], tuple(facts["genres"])
    published, studio = start, "studio-unknown"
    if year is not None and 1880 <= year <= start.year:
        published, studio = datetime(year, 1, 1, tzinfo=UTC), f"studio-{year // 10 * 10}s"
    item = {
        "item_id": facts["item_id"],
        "item_type": "video",
        "creator_id": studio,
        "category": genres[0] if genres else "unknown",
        "tags": genres,
        "text": facts["title"],
        "created_at": published,
        "accepted_at": published,
    }
    return {"items": item}


def _atomic_item(fields: list[str]) -> dict[str, Any]:
    item_id, title, year, genres = _first(fields, "item_id", "movie_title", "release_year", "class")
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
