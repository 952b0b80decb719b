"""The lake sink's real process: what nobody can read on the topics of orders stops it never."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path

from feedrank_core.contracts.topics import (
    CHANGE_REPORTS,
    USER_CHANGES,
    Topic,
    with_dead_letters,
)
from feedrank_core.contracts.user_changes import ChangeKind, ChangeReport, Store, UserChange
from feedrank_core.runtime.bus import Bus, Outgoing, Record
from feedrank_core.runtime.bus_redis import RedisBus
from processes import START_S, Service, free_port, until

POISON = Outgoing("poison", b'{"change_id":"poison"}')
DYING = """
from feedrank_ingestion.__main__ import app
from feedrank_ingestion.order_follower import OrderFollower
def dies(_):
    raise RuntimeError("what nobody expected")
OrderFollower.run = dies
app(["lake-sink"])
"""


def settings(bus_url: str, home: Path) -> dict[str, str]:
    return {"home": str(home), "bus_url": bus_url, "lake_sink_port": str(free_port())}


def held(bus: Bus, topic: Topic) -> list[Record]:
    return [r for r in takewhile(lambda r: r is not None, bus.broadcast(topic)) if r is not None]


def test_what_cannot_be_read_of_orders_and_reports_stops_nobody(
    bus: RedisBus, bus_url: str, tmp_path: Path
) -> None:
    order = UserChange(
        change_id="c" * 32, kind=ChangeKind.ERASE, user_id="u1", accepted_at=datetime.now(UTC)
    )
    publisher = bus.publisher()
    publisher.publish(CHANGE_REPORTS, [POISON])
    publisher.publish(USER_CHANGES, [POISON, Outgoing("u1", order.model_dump_json().encode())])
    publisher.close()
    chosen = settings(bus_url, tmp_path)
    port = int(chosen["lake_sink_port"])
    service = Service(tmp_path, "feedrank_ingestion", "lake-sink", port=port, **chosen)

    def carried_out() -> bool:
        values = [r.value or b"" for r in held(bus, CHANGE_REPORTS) if r.key != POISON.key]
        reports = [ChangeReport.model_validate_json(value) for value in values]
        return any(r.change_id == order.change_id and r.store is Store.LAKE for r in reports)

    with service.running():
        until(carried_out)
    [letter] = held(bus, with_dead_letters()[USER_CHANGES.dlq])
    assert b"change_id" in (letter.value or b"")


def test_a_sink_whose_orders_nobody_follows_any_more_ends_with_an_error(
    bus_url: str, tmp_path: Path
) -> None:
    environment = {f"FEEDRANK_{k.upper()}": v for k, v in settings(bus_url, tmp_path).items()}
    ended = subprocess.run(
        [sys.executable, "-c", DYING],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=START_S,
    )
    assert ended.returncode == 1
    assert "what nobody expected" in ended.stderr
