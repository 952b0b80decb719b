"""JSON lines: events, items, profiles or slates, each line as a client sends it or as exported."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import orjson
from feedrank_core.contracts.api import MAX_BODY_BYTES

from feedrank_cli.errors import CommandError
from feedrank_cli.imports.pieces import ROWS_AT_ONCE, Piece, Refusal, Row, Source, files_below

HELP = "JSON lines (.jsonl, .ndjson, .gz), a file or a folder; the fields tell what a line is"
ROUTES = ("intake", "lake")
ENDINGS = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
PIECE_BYTES = 16 << 20
_SHOWN_BYTES = 2000


def sources(path: Path, topic: str | None) -> list[Source]:
    """The files. Raises: CommandError."""
    found = files_below(path, ENDINGS)
    return [JsonLines(file, file.stat().st_size, topic) for file in found]


@dataclass(frozen=True)
class JsonLines(Source):
    """A file of JSON lines; `size` counts bytes, compressed ones where they are."""

    path: Path
    size: int
    topic: str | None
    schema: None = None

    def read(self, start: int, *, columns: frozenset[str] | None) -> Iterator[Piece]:
        """Lines behind `start`. A line that is no JSON object is broken, and the rest goes on."""
        with opened(self.path) as (lines, raw):
            number, told = 0, 0
            piece, size = Piece(0, 0), 0
            for number, line, whole in _numbered(lines):
                if number <= start:
                    continue
                _take(piece, number, line, whole)
                size += len(line)
                if len(piece.rows) == ROWS_AT_ONCE or size >= PIECE_BYTES:
                    piece.end, piece.advance = number, raw.tell() - told
                    told = raw.tell()
                    yield piece
                    piece, size = Piece(0, 0), 0
            piece.end, piece.advance = max(number, start), self.size - told
            yield piece


@contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """The lines of a file, and the file on disk below them. Raises: CommandError."""
    try:
        with path.open("rb") as raw:
            if path.name.endswith(".gz"):
                with gzip.open(raw) as unpacked:
                    yield unpacked, raw  # pyright: ignore[reportReturnType]
            else:
                yield raw, raw
    except (OSError, zlib.error) as error:
        raise CommandError(f"{path} cannot be read on: {error}.") from error


def _numbered(lines: BinaryIO) -> Iterator[tuple[int, bytes, bool]]:
    """Each line with its number and whether it is there to its end; a long one is cut."""
    number = 0
    try:
        while line := lines.readline(MAX_BODY_BYTES + 1):
            number += 1
            whole = line.endswith(b"\n")
            if len(line) > MAX_BODY_BYTES:
                rest = line
                while rest and not rest.endswith(b"\n"):
                    rest = lines.readline(MAX_BODY_BYTES)
                whole = True
            yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line, whole
    except EOFError:
        # The line in which a .gz was cut cannot be had; its number can.
        yield number + 1, b"", False


def _take(piece: Piece, number: int, line: bytes, whole: bool) -> None:
    text = line.strip()
    if not text and whole:
        return
    values = None
    if len(line) > MAX_BODY_BYTES:
        reason = f"longer than {MAX_BODY_BYTES} bytes"
    else:
        try:
            values, reason = orjson.loads(text), "not a JSON object"
        except orjson.JSONDecodeError as error:
            cut = "" if whole else " (the file ends within this line)"
            reason = f"not JSON: {error}{cut}"
    if isinstance(values, dict):
        piece.rows.append(Row(number, values))
    else:
        shown = text[:_SHOWN_BYTES].decode("utf-8", "replace")
        piece.broken.append(Refusal(number, reason, shown))
