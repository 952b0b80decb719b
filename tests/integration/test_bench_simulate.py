"""`feedrank bench simulate` at a size that fits in a test."""

from __future__ import annotations

from pathlib import Path

import pytest
from feedrank_cli.bench import simulate
from feedrank_cli.bench.report import BenchCannotRun
from feedrank_core.runtime.home import Home


def test_it_measures_a_whole_history_and_leaves_nothing_behind(tmp_path: Path) -> None:
    report = simulate.run(Home(tmp_path / "home"), quick=True, seed=1, events=20_000)
    assert report.figures["events"] == pytest.approx(20_000, rel=0.2)
    assert report.figures["items"] == 2_000
    assert 0.01 < report.figures["peak_memory_gb"] <= simulate.MAX_GB
    assert report.floors["seconds"] > 0
    assert {name for name, _, _ in report.bounds} == {"peak_memory_gb", "events_per_s"}
    assert not list((tmp_path / "home").iterdir())


def test_a_disk_without_room_is_told_before_it_begins(tmp_path: Path) -> None:
    with pytest.raises(BenchCannotRun, match="has no room for"):
        simulate.run(Home(tmp_path), quick=False, seed=1, events=10**13)
