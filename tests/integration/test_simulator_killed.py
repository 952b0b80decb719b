"""A history whose making is killed and begun again is the history of one run."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from feedrank_simulator import plan
from feedrank_simulator.bulk import write_history
from feedrank_simulator.world import World

END = datetime(2026, 1, 15, tzinfo=UTC)
RUN_AND_DIE = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from feedrank_simulator import plan
from feedrank_simulator.bulk import write_history
from feedrank_simulator.world import World

def die(done, total):
    if done == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    plan.READERS_PER_BLOCK = 50
    world = World.make(5, 400, 500, days=3, end=datetime(2026, 1, 15, tzinfo=UTC))
    write_history(world, Path(sys.argv[1]), seed=2, workers=2, progress=die)
"""


def test_killed_twice_and_run_again_it_is_the_history_of_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "READERS_PER_BLOCK", 50)
    world = World.make(5, 400, 500, days=3, end=END)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    expected = write_history(world, whole, seed=2)
    program = tmp_path / "run_and_die.py"
    program.write_text(RUN_AND_DIE)
    for at in ("3", "6"):
        run = subprocess.Popen(
            [sys.executable, str(program), str(killed), at], stderr=subprocess.PIPE
        )
        _, said = run.communicate(timeout=120)  # ends once the workers have ended as well
        assert run.returncode == -9, said.decode()
    assert len(files(killed)) < len(files(whole))
    assert write_history(world, killed, seed=2) == expected
    assert files(killed) == files(whole)
    assert not list(killed.glob("*/.*"))


def files(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in out.glob("*.parquet/part-*")}
