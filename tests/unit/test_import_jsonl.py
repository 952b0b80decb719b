"""JSON lines as rows: what is broken is told by its line, and the rest comes in."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from feedrank_cli.errors import CommandError
from feedrank_cli.imports.formats import jsonl
from feedrank_cli.imports.pieces import Piece


def pieces(path: Path, start: int = 0) -> list[Piece]:
    (source,) = jsonl.sources(path, None)
    return list(source.read(start, columns=None))


def written(folder: Path, content: bytes, name: str = "events.jsonl") -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def test_a_file_cut_in_a_line_gives_the_lines_before_and_names_the_cut_one(tmp_path: Path) -> None:
    (piece,) = pieces(written(tmp_path, b'{"a": 1}\n\n{"a": 2}\n{"a": 3, "b'))
    assert [(row.number, row.values) for row in piece.rows] == [(1, {"a": 1}), (3, {"a": 2})]
    (broken,) = piece.broken
    assert broken.number == 4
    assert broken.reason.endswith("(the file ends within this line)")
    assert broken.text == '{"a": 3, "b'
    assert piece.end == 4


def test_a_packed_file_that_was_cut_gives_what_can_be_unpacked_and_names_the_next_line(
    tmp_path: Path,
) -> None:
    lines = b"".join(b'{"a": %d}\n' % n for n in range(20_000))
    packed = gzip.compress(lines)
    found = pieces(written(tmp_path, packed[: len(packed) // 2], "events.jsonl.gz"))
    rows = [row.values["a"] for piece in found for row in piece.rows]
    assert rows == list(range(len(rows)))
    assert 5_000 < len(rows) < 20_000
    (broken,) = found[-1].broken
    assert broken.number == len(rows) + 1
    assert "the file ends within this line" in broken.reason
    whole = pieces(written(tmp_path, packed, "events.jsonl.gz"))
    assert sum(len(piece.rows) for piece in whole) == 20_000


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"rubbish\n", "not JSON"),
        (b'{"dwell_s": NaN}\n', "not JSON"),
        (b"[1]\n", "not a JSON object"),
        (b"\xff\xfe\n", "not JSON"),
        (b'{"x": "' + b"y" * (2 << 20) + b'"}\n', "longer than"),
    ],
)
def test_a_line_that_is_no_object_is_broken_and_those_around_it_are_not(
    line: bytes, reason: str, tmp_path: Path
) -> None:
    (piece,) = pieces(written(tmp_path, b'\xef\xbb\xbf{"a": 1}\n' + line + b'{"a": 2}\n'))
    assert [row.number for row in piece.rows] == [1, 3]
    assert [broken.number for broken in piece.broken] == [2]
    assert reason in piece.broken[0].reason
    assert len(piece.broken[0].text) <= 2000


def test_reading_goes_on_behind_the_line_it_came_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsonl, "ROWS_AT_ONCE", 3)
    path = written(tmp_path, b"".join(b'{"a": %d}\n' % n for n in range(8)))
    found = pieces(path)
    assert [piece.end for piece in found] == [3, 6, 8]
    assert sum(piece.advance for piece in found) == path.stat().st_size
    assert [row.number for piece in pieces(path, start=6) for row in piece.rows] == [7, 8]
    assert [piece.end for piece in pieces(path, start=8)] == [8]


def test_a_folder_is_its_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl.gz", "c.txt", ".a.jsonl", "deep/z.ndjson"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    names = [str(s.path.relative_to(tmp_path)) for s in jsonl.sources(tmp_path, None)]
    assert names == ["a.jsonl.gz", "b.jsonl", "deep/z.ndjson"]


@pytest.mark.parametrize(("path", "said"), [("none", "does not exist"), (".", "holds no file")])
def test_nothing_to_read_is_told(path: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=said):
        jsonl.sources(tmp_path / path, None)
