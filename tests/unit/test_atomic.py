"""Files that are there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from feedrank_core.runtime import atomic
from feedrank_core.runtime.atomic import replacing, write_atomically


def test_a_write_replaces_the_whole_content_and_leaves_nothing_beside(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", b"a long first content")
    write_atomically(tmp_path / "file", b"short")
    assert (tmp_path / "file").read_bytes() == b"short"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_write_that_fails_keeps_the_old_content_and_leaves_nothing_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_atomically(tmp_path / "file", b"old")

    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_nobody_sees_the_new_content_before_it_is_whole(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", b"old")
    with replacing(tmp_path / "file") as unfinished:
        unfinished.write_bytes(b"ne")
        assert (tmp_path / "file").read_bytes() == b"old"
        unfinished.write_bytes(b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
