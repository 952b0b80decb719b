import os
import re
import time

import psutil
import pytest
from feedrank_cli.demo import free_ports
from feedrank_cli.show import MAX_COMMON, common_share, like, look, rare_items, two_readers
from feedrank_core.runtime.kafka_broker import BrokerUnavailableError, jars, require_java
from feedrank_core.runtime.lake import Lake
from machine import Machine

pytestmark = pytest.mark.long
WORLD = ("--users", "300", "--items", "800", "--days", "6", "--seed", "3")


def likes_in_the_lake(machine: Machine, user: str) -> set[str]:
    with Lake(machine.settings.place.lake).connect() as lake:
        rows = lake.execute(
            "SELECT item_id FROM interactions WHERE user_id = ? AND event_type = 'like'", [user]
        ).fetchall()
    return {item for (item,) in rows}


def test_the_loop_runs_on_kafka_and_leaves_nothing(tmp_path):
    try:
        require_java()
        jars()
    except BrokerUnavailableError as error:
        pytest.skip(str(error))
    machine = Machine(tmp_path / "home")
    machine.settings = machine.settings.model_copy(
        update={"kafka_controller_port": free_ports(1)[0]}
    )
    settings, supervisor = machine.settings, machine.supervisor
    world = str(tmp_path / "world")
    try:
        machine.feedrank("up", "--bus", "kafka")
        assert "java" in psutil.Process(supervisor.states()["bus"]["pid"]).name()
        machine.feedrank("simulate", "bulk", "--out", world, *WORLD)
        machine.feedrank("import", "parquet", world)
        machine.feedrank("daily", "--epochs", "2")
        one, other = (look(settings, user) for user in two_readers(settings))
        assert common_share(one, other) <= MAX_COMMON

        pid = supervisor.states()["bus"]["pid"]
        os.kill(pid, 9)
        deadline = time.monotonic() + 60
        while supervisor.states()["bus"]["pid"] in (0, pid):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        machine.feedrank("up")

        _, items = rare_items(settings, one)
        like(settings, one.user, items)
        machine.feedrank("daily", "--epochs", "2")
        assert {*items} <= likes_in_the_lake(machine, one.user)
        after = look(settings, one.user, not_bundle=one.bundle)
        assert not {*items} & {*after.items}
        said = machine.feedrank("audit", "skew")
        assert re.search(r"[1-9]\d* values of .*: 0 differ", said), said

        pids = [process.pid for process in supervisor.members()]
        assert len(pids) >= 7
        machine.feedrank("down")
        assert not [pid for pid in pids if psutil.pid_exists(pid)]
        assert not supervisor.members()
    finally:
        supervisor.stop()
