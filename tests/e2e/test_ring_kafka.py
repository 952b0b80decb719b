import os
import subprocess
import sys
import time

import psutil
import pytest
from feedrank_cli.demo import free_ports, own_settings
from feedrank_cli.show import MAX_COMMON, common_share, like, look, rare_items, two_readers
from feedrank_cli.supervision import Supervisor
from feedrank_core.runtime.kafka_broker import BrokerUnavailableError, jars, require_java

WORLD = ("--users", "300", "--items", "800", "--days", "6", "--seed", "3")


def feedrank(settings, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "feedrank_cli", *arguments],
        env=os.environ | settings.environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_loop_runs_on_kafka_and_leaves_nothing(tmp_path):
    try:
        require_java()
        jars()
    except BrokerUnavailableError as error:
        pytest.skip(str(error))
    settings = own_settings(tmp_path / "home")
    settings = settings.model_copy(update={"kafka_controller_port": free_ports(1)[0]})
    supervisor = Supervisor(settings)
    world = str(tmp_path / "world")
    try:
        feedrank(settings, "up", "--bus", "kafka")
        assert "java" in psutil.Process(supervisor.states()["bus"]["pid"]).name()
        feedrank(settings, "simulate", "bulk", "--out", world, *WORLD)
        feedrank(settings, "import", "parquet", world)
        feedrank(settings, "daily", "--epochs", "2")
        one, other = (look(settings, user) for user in two_readers(settings))
        assert common_share(one, other) <= MAX_COMMON

        pid = supervisor.states()["bus"]["pid"]
        os.kill(pid, 9)
        deadline = time.monotonic() + 60
        while supervisor.states()["bus"]["pid"] in (0, pid):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        feedrank(settings, "up")

        _, items = rare_items(settings, one)
        like(settings, one.user, items)
        feedrank(settings, "daily", "--epochs", "2")
        after = look(settings, one.user, not_bundle=one.bundle)
        assert not {*items} & {*after.items}

        pids = [process.pid for process in supervisor.members()]
        assert len(pids) >= 7
        feedrank(settings, "down")
        assert not [pid for pid in pids if psutil.pid_exists(pid)]
        assert not supervisor.members()
    finally:
        supervisor.stop()
