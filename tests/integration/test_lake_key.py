"""The key of the lake's tombstones: lost, nothing is done under another until it is back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from feedrank_core.contracts.topics import USER_CHANGES
from feedrank_core.contracts.user_changes import LAKE_GROUP, ChangeKind, UserChange
from feedrank_core.runtime.bus import Outgoing
from feedrank_core.runtime.bus_memory import MemoryBus
from feedrank_core.runtime.lake import Lake
from feedrank_core.runtime.lake_erasure import LakeEraser
from feedrank_core.runtime.metrics import Metrics
from feedrank_core.runtime.subjects import KEY_FILE, Subjects
from feedrank_ingestion import order_follower
from feedrank_ingestion.order_follower import OrderFollower
from processes import until

USER = "u1"


def test_no_order_is_carried_out_under_another_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order_follower, "PAUSE_S", 0.01)
    bus, lake, now = MemoryBus(), Lake(tmp_path), datetime.now(UTC)
    orders = [
        UserChange(change_id=digit * 32, kind=ChangeKind.ERASE, user_id=USER, accepted_at=now)
        for digit in "ab"
    ]
    LakeEraser(lake, grace=timedelta(0)).apply(orders[:1])
    key = tmp_path / KEY_FILE
    kept = key.read_bytes()
    key.unlink()
    eraser = LakeEraser(lake, grace=timedelta(0))
    value = orders[1].model_dump_json().encode()
    bus.publisher().publish(USER_CHANGES, [Outgoing(USER, value)])
    follower = OrderFollower(bus=bus, lake=lake, eraser=eraser, metrics=Metrics("ingestion"))
    with ThreadPoolExecutor(1) as beside:
        following = beside.submit(follower.run)
        try:
            until(lambda: KEY_FILE in (follower.trouble or ""))
            assert not lake.changes.rows(orders[1].change_id)
            key.write_bytes(kept)
            until(lambda: bus.committed(USER_CHANGES, group=LAKE_GROUP)[0])
        finally:
            follower.stop()
        following.result()
    subjects = {row["subject"] for row in lake.changes.rows()}
    assert subjects == {Subjects.of_lake(tmp_path).of(USER)}
