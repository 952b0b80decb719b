"""The gateway's parts: breaker, cursor secret, bundle watcher, closure."""

from __future__ import annotations

import re
import threading
from importlib.metadata import requires
from pathlib import Path

import orjson
import pytest
from feedrank_core.contracts.bundle import MANIFEST, Part, Stage
from feedrank_core.contracts.ids import ExternalId
from feedrank_core.runtime.bundle_store import BundleStore
from feedrank_core.runtime.secret_file import load_secret
from feedrank_gateway.breaker import Breaker
from feedrank_gateway.bundle_watcher import BundleWatcher
from feedrank_gateway.cursor import Cursor, CursorCodec
from feedrank_gateway.query import InvalidQueryError, check_user_id
from gateway_world import FIRST, SECOND, StillPointer, write_bundle
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError


def test_an_open_breaker_lets_one_probe_through_per_cool_down():
    now = [0.0]
    breaker = Breaker(max_failures=2, cool_down_s=1.0, clock=lambda: now[0])
    breaker.failed()
    assert breaker.allows()
    breaker.failed()
    assert not breaker.allows()
    now[0] = 1.5
    assert [breaker.allows() for _ in range(20)].count(True) == 1
    breaker.succeeded()
    assert all(breaker.allows() for _ in range(5))


@given(st.text(max_size=140))
def test_the_quick_check_of_user_ids_equals_the_contract(text):
    try:
        TypeAdapter(ExternalId).validate_python(text)
    except ValidationError:
        with pytest.raises(InvalidQueryError):
            check_user_id(text)
    else:
        check_user_id(text)


@given(st.lists(st.integers(0, 2**32 - 1), max_size=3), st.text(min_size=1, max_size=20))
def test_a_cursor_comes_back_as_it_went(numbers, user):
    user = user.encode("utf-8", "ignore").decode()
    codec, cursor = CursorCodec(b"secret"), Cursor("0123456789abcdef" * 2, *numbers)
    assert codec.decode(codec.encode(cursor, user), user) == cursor


def test_workers_that_start_together_share_one_secret(tmp_path):
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(load_secret(tmp_path / "run" / "key")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found[0]) == 32
    assert (tmp_path / "run" / "key").stat().st_mode & 0o777 == 0o600
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["key"]


def _watch(root: Path, pointer: StillPointer) -> tuple[BundleWatcher, list[str]]:
    outcomes: list[str] = []
    return (
        BundleWatcher(BundleStore(root), pointer, poll_s=1.0, retry_s=3.0, on_swap=outcomes.append),
        outcomes,
    )


def test_a_flip_takes_the_new_bundle_and_keeps_the_old_for_the_way_back(tmp_path):
    write_bundle(tmp_path, FIRST)
    write_bundle(tmp_path, SECOND)
    pointer = StillPointer(FIRST)
    watcher, outcomes = _watch(tmp_path, pointer)
    watcher.poll()
    first = watcher.current
    pointer.bundle_id = SECOND
    watcher.poll()
    assert watcher.current and watcher.current.bundle_id == SECOND
    assert watcher.previous is first
    pointer.bundle_id = FIRST
    watcher.poll()
    assert watcher.current is first
    assert outcomes == ["served"] * 3


def _flip_a_byte(root: Path) -> None:
    file = root / SECOND / Part.ITEM_KEYS.value
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)


def _other_schema(root: Path) -> None:
    file = root / SECOND / MANIFEST
    file.write_bytes(orjson.dumps(orjson.loads(file.read_bytes()) | {"schema_version": 99}))


def _remove_a_part(root: Path) -> None:
    (root / SECOND / Part.POPULAR.value).unlink()


def _not_indexed(root: Path) -> None:
    write_bundle(root, SECOND, stage=Stage.TRAINED)


@pytest.mark.parametrize("harm", [_flip_a_byte, _other_schema, _remove_a_part, _not_indexed])
def test_a_bad_bundle_is_refused_counted_once_and_taken_when_mended(tmp_path, harm):
    write_bundle(tmp_path, FIRST)
    write_bundle(tmp_path, SECOND)
    pointer = StillPointer(FIRST)
    watcher, outcomes = _watch(tmp_path, pointer)
    watcher.poll()
    harm(tmp_path)
    pointer.bundle_id = SECOND
    watcher.poll()
    watcher.poll()
    assert watcher.current and watcher.current.bundle_id == FIRST
    assert watcher.stands_in
    assert outcomes == ["served", "refused"]
    write_bundle(tmp_path, SECOND)
    for _ in range(4):
        watcher.poll()
    assert watcher.current.bundle_id == SECOND
    assert not watcher.stands_in


def test_a_way_back_to_the_bundle_that_stands_in_makes_it_the_one_that_serves(tmp_path):
    write_bundle(tmp_path, FIRST)
    write_bundle(tmp_path, SECOND)
    _flip_a_byte(tmp_path)
    pointer = StillPointer(FIRST)
    watcher, _ = _watch(tmp_path, pointer)
    watcher.poll()
    pointer.bundle_id = SECOND
    watcher.poll()
    assert watcher.stands_in
    pointer.bundle_id = FIRST
    watcher.poll()
    assert not watcher.stands_in


def test_a_process_that_starts_before_a_harmed_bundle_serves_the_newest_sound_one(tmp_path):
    third = "20260103T000000-00000003"
    for bundle_id in (FIRST, SECOND, third):
        write_bundle(tmp_path, bundle_id)
    _flip_a_byte(tmp_path)
    (tmp_path / third / MANIFEST).write_bytes(b"{")
    watcher, outcomes = _watch(tmp_path, StillPointer(SECOND))
    watcher.poll()
    assert watcher.current and watcher.current.bundle_id == FIRST
    assert watcher.stands_in
    assert outcomes == ["refused", "served"]


def test_the_gateway_installs_no_torch_no_feast_and_no_kserve():
    closure = _closure("feedrank-gateway", set())
    assert "fastapi" in closure
    assert not closure & {"torch", "feast", "kserve", "onnxruntime", "pyarrow", "pandas"}


def _closure(distribution: str, extras: set[str]) -> set[str]:
    """Everything that installing the distribution brings, by installed metadata."""
    found: set[str] = set()
    todo = [(distribution, frozenset(extras))]
    done: set[tuple[str, frozenset[str]]] = set()
    while todo:
        name, wanted = todo.pop()
        if (name, wanted) in done:
            continue
        done.add((name, wanted))
        found.add(name)
        for line in requires(name) or []:
            spec, _, marker = line.partition(";")
            needed = re.findall(r"extra == ['\"]([^'\"]+)['\"]", marker)
            if needed and not set(needed) & wanted:
                continue
            match = re.match(r"([A-Za-z0-9._-]+)(?:\[([^\]]*)\])?", spec.strip())
            assert match, line
            child = re.sub(r"[-_.]+", "-", match[1]).lower()
            if _installed(child):
                todo.append((child, frozenset(e.strip() for e in (match[2] or "").split(",") if e)))
    return found


def _installed(name: str) -> bool:
    try:
        requires(name)
    except ModuleNotFoundError:
        return False
    return True
