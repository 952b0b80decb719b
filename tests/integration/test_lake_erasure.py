"""Erasure and merge in the lake: nothing is left, nothing comes back, and any step may crash."""

from __future__ import annotations

import itertools
import shutil
import uuid
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from deltalake import DeltaTable
from feedrank_core.contracts.events import Interaction, InteractionType
from feedrank_core.contracts.user_changes import ChangeKind, UserChange
from feedrank_core.contracts.users import User
from feedrank_core.runtime import lake_erasure, lake_upkeep
from feedrank_core.runtime.lake import Lake
from feedrank_core.runtime.lake_changes import Progress
from feedrank_core.runtime.lake_erasure import LakeEraser
from feedrank_core.runtime.lake_errors import WrongKeyError
from feedrank_core.runtime.lake_schema import USER_KEYS
from feedrank_core.runtime.lake_sweep import USER_TABLES

T0 = datetime(2026, 1, 2, 23, 50, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
LATER = T0 + timedelta(days=30)
NEEDLE = "reader-needle"
KNOWN = "reader-known"
PATIENCE_S = 30.0
numbers = itertools.count()


def click(user: str, at: datetime, event_id: str | None = None) -> dict[str, Any]:
    event = Interaction(
        event_id=event_id or f"e{next(numbers)}",
        user_id=user,
        item_id="i1",
        event_type=InteractionType.CLICK,
        occurred_at=at,
        accepted_at=at,
    )
    return event.model_dump()


def profile(user: str, at: datetime, country: str) -> dict[str, Any]:
    return User(user_id=user, country=country, accepted_at=at).model_dump()


def erase(user: str, at: datetime) -> UserChange:
    kind = ChangeKind.ERASE
    return UserChange(change_id=uuid.uuid4().hex, kind=kind, user_id=user, accepted_at=at)


def merge(user: str, into: str, at: datetime) -> UserChange:
    return UserChange(
        change_id=uuid.uuid4().hex, kind=ChangeKind.MERGE, user_id=user, into=into, accepted_at=at
    )


def eraser(lake: Lake) -> LakeEraser:
    return LakeEraser(lake, grace=timedelta(0))


def carry_out(lake: Lake, *changes: UserChange) -> None:
    actor = eraser(lake)
    actor.apply(changes)
    actor.settle(changes, LATER)
    actor.purge(LATER)


def clicks(lake: Lake, as_of: datetime | None = None) -> dict[str, int]:
    counted = "SELECT user_id, count(*) FROM interactions GROUP BY 1"
    return dict(lake.connect(as_of).execute(counted).fetchall())


def files_with(root: Path, text: str) -> list[str]:
    """Whatever lies below the lake and holds the text, by name or in its bytes."""
    every = [p for p in root.rglob("*") if p.is_file()]
    return [str(p) for p in every if text.encode() in p.read_bytes() or text in str(p)]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A reader with two days of clicks and a profile, among others."""
    lake = Lake(tmp_path / "lake")
    lake.append("users", [profile(NEEDLE, T0, "DE"), profile(KNOWN, T0, "SE")])
    rows = [click(NEEDLE, T0), click(NEEDLE, T0 + 20 * MINUTE, f"event-of-{NEEDLE}")]
    lake.append("interactions", [*rows, click(KNOWN, T0)])
    return lake


def test_no_file_of_the_lake_holds_an_erased_reader(lake: Lake) -> None:
    assert files_with(lake.root, NEEDLE)
    order = erase(NEEDLE, T0 + 30 * MINUTE)
    carry_out(lake, order)
    assert files_with(lake.root, NEEDLE) == []
    assert clicks(lake) == {KNOWN: 1}
    [row] = lake.changes.rows()
    assert (row["state"], row["removed"], row["user_keys"]) == (Progress.DONE, 3, [])
    assert lake.tombstones().covers(NEEDLE, order.accepted_at)
    assert not lake.tombstones().covers(NEEDLE, order.accepted_at + MINUTE)


def test_what_is_left_can_still_be_looked_for_by_its_text(lake: Lake) -> None:
    """In the files that were written anew: DELETE and UPDATE of Delta would spoil them for it."""
    lake.append("interactions", [click(NEEDLE, T0 + 31 * MINUTE, "later"), click(KNOWN, T0)])
    lake.compact()
    carry_out(lake, erase(NEEDLE, T0 + 30 * MINUTE))
    con = lake.connect()
    for user, number in ((KNOWN, 2), (NEEDLE, 1)):
        counted = "SELECT count(*) FROM interactions WHERE event_type = 'click' AND user_id = ?"
        assert con.execute(counted, [user]).fetchone() == (number,)
    found = con.execute("SELECT user_id FROM interactions WHERE event_id = 'later'").fetchall()
    assert found == [(NEEDLE,)]
    assert lake.keys.keys_of(KNOWN, before=LATER)
    carry_out(lake, erase(KNOWN, T0 + 40 * MINUTE))
    assert clicks(lake) == {NEEDLE: 1}


def test_what_was_accepted_before_the_erasure_never_comes_in_again(lake: Lake) -> None:
    carry_out(lake, erase(NEEDLE, T0 + 30 * MINUTE))
    for writer in (lake, Lake(lake.root)):
        old = [click(NEEDLE, T0 + 30 * MINUTE), click(NEEDLE, T0)]
        assert writer.append("interactions", old) == 0
        assert writer.append("users", [profile(NEEDLE, T0, "DE"), profile("x", T0, "DE")]) == 1
    assert files_with(lake.root, NEEDLE) == []


def test_who_comes_back_is_somebody_new(lake: Lake) -> None:
    before = lake.connect().execute(f"FROM _user_keys WHERE user_id = '{NEEDLE}'").fetchone()
    carry_out(lake, erase(NEEDLE, T0 + 30 * MINUTE))
    lake.append("interactions", [click(NEEDLE, T0 + 31 * MINUTE), click(NEEDLE, T0)])
    after = lake.connect().execute(f"FROM _user_keys WHERE user_id = '{NEEDLE}'").fetchone()
    assert clicks(lake) == {NEEDLE: 1, KNOWN: 1}
    assert before is not None
    assert after is not None
    assert before[1] != after[1]


def test_what_came_after_the_order_and_before_its_application_stays(lake: Lake) -> None:
    order = erase(NEEDLE, T0 + 30 * MINUTE)
    lake.append("interactions", [click(NEEDLE, T0 + 31 * MINUTE)])
    carry_out(lake, order)
    assert clicks(lake) == {NEEDLE: 1, KNOWN: 1}
    lake.append("interactions", [click(NEEDLE, T0 + 32 * MINUTE)])
    assert clicks(lake) == {NEEDLE: 2, KNOWN: 1}
    carry_out(lake, order)
    assert clicks(lake) == {NEEDLE: 2, KNOWN: 1}


def test_a_batch_that_a_sink_had_in_hand_is_swept(lake: Lake, monkeypatch: Any) -> None:
    """The sink looked for tombstones before there was one and appends after the first sweep."""
    order = erase(NEEDLE, T0 + 30 * MINUTE)
    sink, actor = Lake(lake.root), eraser(lake)
    with_keys = sink._with_user_keys

    def interrupted(topic: str, table: Any) -> Any:
        rows = with_keys(topic, table)
        actor.apply([order])
        return rows

    monkeypatch.setattr(sink, "_with_user_keys", interrupted)
    shown = click(NEEDLE, T0 + 21 * MINUTE) | {"event_type": "impression"}
    del shown["dwell_s"]
    assert sink.append("impressions", [shown]) == 1
    monkeypatch.undo()
    seen = "SELECT count(*) FROM impressions"
    assert lake.connect().execute(seen).fetchone() == (0,)
    rows = actor.settle([order], LATER)
    actor.purge(LATER)
    assert rows[order.change_id]["removed"] == 4
    held = lake.connect().execute("SELECT count(*) FROM _impressions").fetchone()
    assert held == (0,)


def test_a_key_that_a_sink_gave_for_older_rows_meanwhile_goes_too(
    lake: Lake, monkeypatch: Any
) -> None:
    order = erase("stranger", T0 + 30 * MINUTE)
    sink, actor = Lake(lake.root), eraser(lake)
    kept = sink._kept

    def interrupted(topic: str, table: Any) -> Any:
        rows = kept(topic, table)
        actor.apply([order])
        return rows

    monkeypatch.setattr(sink, "_kept", interrupted)
    sink.append("interactions", [click("stranger", T0)])
    monkeypatch.undo()
    actor.settle([order], LATER)
    actor.purge(LATER)
    assert clicks(lake) == {KNOWN: 1, NEEDLE: 2}
    assert files_with(lake.root, "stranger") == []


@pytest.mark.parametrize("user", [NEEDLE, "stranger"])
@pytest.mark.parametrize("looked", ["_kept", "_with_user_keys"])
def test_an_import_that_looked_before_the_erasure_does_not_bring_the_reader_back(
    lake: Lake, monkeypatch: Any, looked: str, user: str
) -> None:
    """It is no sink, whose position one could wait for."""
    order, importing, actor = erase(user, T0 + 30 * MINUTE), Lake(lake.root), eraser(lake)
    begun, go = Event(), Event()
    look, wait = getattr(importing, looked), lake.locks.without_appends

    def paused(topic: str, table: Any) -> Any:
        rows = look(topic, table)
        begun.set()
        assert go.wait(PATIENCE_S)
        return rows

    def let_go() -> Any:
        go.set()
        return wait()

    monkeypatch.setattr(importing, looked, paused)
    monkeypatch.setattr(lake.locks, "without_appends", let_go)
    rows = [click(user, T0, f"imported-{user}")]
    append = Thread(target=lambda: importing.append("interactions", rows))
    append.start()
    assert begun.wait(PATIENCE_S)
    actor.apply([order])
    actor.settle([order], LATER)
    assert [row["state"] for row in actor.purge(LATER)] == [Progress.DONE]
    append.join()
    assert user not in clicks(lake)
    assert files_with(lake.root, user) == []


def test_a_compaction_that_loses_to_an_erasure_begins_anew_and_leaves_nothing_behind(
    lake: Lake, monkeypatch: Any
) -> None:
    """What it wrote first holds the reader, and no version of the table ever named the file."""
    for user in ("first", "second"):
        lake.append("users", [profile(user, T0, "FR")])
    order, actor = erase(NEEDLE, T0 + 30 * MINUTE), eraser(lake)
    begun, go, compact = Event(), Event(), lake_upkeep._compact
    replaced: dict[str, int] = {}

    def paused(table: DeltaTable, first_kept: date | None) -> int:
        if Path(table.table_uri).name == USER_KEYS:
            begun.set()
            assert go.wait(PATIENCE_S)
        return compact(table, first_kept)

    monkeypatch.setattr(lake_upkeep, "_compact", paused)
    compaction = Thread(target=lambda: replaced.update(Lake(lake.root).compact()))
    compaction.start()
    assert begun.wait(PATIENCE_S)
    actor.apply([order])
    assert actor.settle([order], LATER)[order.change_id]["state"] == Progress.SETTLED
    assert actor.purge(LATER) == []
    go.set()
    compaction.join()
    assert replaced[USER_KEYS] == 3
    assert [row["state"] for row in actor.purge(LATER)] == [Progress.DONE]
    assert files_with(lake.root, NEEDLE) == []


def test_a_merged_readers_rows_are_the_others_from_the_merge_on(lake: Lake) -> None:
    order = merge(NEEDLE, KNOWN, T0 + 30 * MINUTE)
    carry_out(lake, order)
    assert clicks(lake) == {KNOWN: 3}
    assert clicks(lake, order.accepted_at) == {KNOWN: 3}
    assert clicks(lake, order.accepted_at - MINUTE) == {KNOWN: 1, NEEDLE: 2}
    late = [click(NEEDLE, T0 + 25 * MINUTE), click(NEEDLE, T0 + 35 * MINUTE)]
    lake.append("interactions", late)
    assert clicks(lake) == {KNOWN: 4, NEEDLE: 1}


def test_of_a_merged_profile_counts_only_what_the_other_never_said(lake: Lake) -> None:
    lake.append("users", [profile("anon", T0 + 5 * MINUTE, "FR")])
    carry_out(lake, merge("anon", KNOWN, T0 + 6 * MINUTE), merge(NEEDLE, "new", T0 + 7 * MINUTE))
    found = lake.connect().execute("SELECT user_id, country FROM users ORDER BY 1").fetchall()
    assert found == [("new", "DE"), (KNOWN, "SE")]


def test_chains_and_circles_of_merges_end_with_the_last(lake: Lake) -> None:
    first, second = T0 + 30 * MINUTE, T0 + 40 * MINUTE
    carry_out(lake, merge(NEEDLE, KNOWN, first))
    carry_out(lake, merge(KNOWN, NEEDLE, second))
    assert clicks(lake) == {NEEDLE: 3}
    assert clicks(lake, first) == {KNOWN: 3}
    lake.append("interactions", [click(KNOWN, T0 + 50 * MINUTE)])
    carry_out(lake, merge(NEEDLE, "third", T0 + 60 * MINUTE))
    assert clicks(lake) == {"third": 3, KNOWN: 1}


def test_an_erasure_takes_along_whoever_was_merged_into_the_reader(lake: Lake) -> None:
    carry_out(lake, merge(NEEDLE, KNOWN, T0 + 30 * MINUTE), erase(KNOWN, T0 + 40 * MINUTE))
    assert clicks(lake) == {}
    assert files_with(lake.root, NEEDLE) == files_with(lake.root, KNOWN) == []
    late = [click(NEEDLE, T0 + 30 * MINUTE), click(NEEDLE, T0 + 31 * MINUTE), click(KNOWN, T0)]
    assert lake.append("interactions", late) == 1


def test_erasing_a_merged_reader_leaves_the_other_what_they_got(lake: Lake) -> None:
    carry_out(lake, merge(NEEDLE, KNOWN, T0 + 30 * MINUTE), erase(NEEDLE, T0 + 40 * MINUTE))
    assert clicks(lake) == {KNOWN: 3}
    named = [p for p in files_with(lake.root, NEEDLE) if "user_keys" in p]
    assert named == []


def test_merging_an_erased_reader_moves_only_what_came_since(lake: Lake) -> None:
    carry_out(lake, erase(NEEDLE, T0 + 30 * MINUTE))
    lake.append("interactions", [click(NEEDLE, T0 + 31 * MINUTE)])
    carry_out(lake, merge(NEEDLE, KNOWN, T0 + 40 * MINUTE))
    assert clicks(lake) == {KNOWN: 2}


class Crash(BaseException):
    """The process is gone."""


def crash_at_write(victim: Lake, number: int, order: UserChange) -> str | None:
    """Carry the order out as far as this write, files without a commit and all; which it was."""
    writes = itertools.count()

    def crashing(owner: Any, name: str) -> None:
        call = getattr(owner, name)

        def perhaps(*args: Any, **kwargs: Any) -> Any:
            if next(writes) == number:
                for table in (*USER_TABLES, USER_KEYS):
                    for file in map(Path, victim.files(table)):
                        shutil.copy(file, file.with_name(f"lost-{file.name}"))
                raise Crash(name)
            return call(*args, **kwargs)

        patch.setattr(owner, name, perhaps)

    with pytest.MonkeyPatch.context() as patch:
        crashing(victim.changes, "put")
        crashing(victim.keys, "rewrite")
        crashing(victim.keys, "_assign")
        crashing(lake_erasure, "sweep")
        try:
            carry_out(victim, order)
        except Crash as crash:
            return str(crash)
    return None


@pytest.mark.parametrize("kind", [ChangeKind.ERASE, ChangeKind.MERGE])
def test_an_order_that_crashed_at_any_write_is_completed_by_a_repeat(
    lake: Lake, tmp_path: Path, kind: ChangeKind
) -> None:
    at = T0 + 30 * MINUTE
    order = erase(NEEDLE, at) if kind is ChangeKind.ERASE else merge(NEEDLE, KNOWN, at)
    wanted = {KNOWN: 1, NEEDLE: 1} if kind is ChangeKind.ERASE else {KNOWN: 3, NEEDLE: 1}
    lake.append("interactions", [click(NEEDLE, at + MINUTE)])
    crashed: list[str] = []
    for number in itertools.count():
        root = tmp_path / str(number)
        shutil.copytree(lake.root, root)
        write = crash_at_write(Lake(root), number, order)
        if write is None:
            break
        crashed.append(write)
        carry_out(Lake(root), order)
        held = Lake(root)
        assert clicks(held) == wanted
        if kind is ChangeKind.ERASE:
            assert files_with(root, f"event-of-{NEEDLE}") == []
            assert {*files_with(root, NEEDLE)} <= {*held.files(USER_KEYS)}
    assert {*crashed} == {"put", "rewrite", "_assign", "sweep"}


def test_the_lake_says_so_when_its_key_was_lost(lake: Lake) -> None:
    carry_out(lake, erase(NEEDLE, T0 + 30 * MINUTE))
    (lake.root / "erasure.key").unlink()
    with pytest.raises(WrongKeyError, match=r"erasure\.key"):
        Lake(lake.root).append("interactions", [click(NEEDLE, T0)])
