import os
import signal
import subprocess
import sys

import psutil
import pytest
from machine import Machine
from processes import until


def test_down_leaves_no_process(tmp_path):
    machine = Machine(tmp_path)
    machine.feedrank("up")
    pids = [process.pid for process in machine.supervisor.members()]
    assert len(pids) >= 7
    machine.feedrank("down")
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    assert not machine.supervisor.members()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_up_leaves_no_process(tmp_path, number):
    machine = Machine(tmp_path)
    up = subprocess.Popen(
        [sys.executable, "-m", "feedrank_cli", "up", "--foreground"],
        env=os.environ | machine.settings.environment(),
        stdout=subprocess.DEVNULL,
    )
    until(lambda: len(machine.supervisor.members()) >= 4)
    up.send_signal(number)
    up.wait(timeout=60)
    assert not machine.supervisor.members()
