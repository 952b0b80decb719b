"""An import that is killed anywhere and begun again loses nothing and keeps nothing twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feedrank_cli.import_command import bring_in
from feedrank_cli.settings import Settings
from feedrank_core.runtime.lake import Lake

AT = datetime(2026, 1, 15, tzinfo=UTC)
ROWS = 100
BAD = range(5, ROWS, 10)
IMPORT_AND_DIE = """
import os, signal, sys
from pathlib import Path
from feedrank_cli import import_command
from feedrank_cli.imports.checkpoint import Checkpoint
from feedrank_cli.imports.formats import jsonl, parquet
from feedrank_cli.imports.rejects import Rejects
from feedrank_cli.settings import Settings
from feedrank_core.runtime.lake import Lake

home, form, path, point, left = sys.argv[1:]
jsonl.ROWS_AT_ONCE = parquet.MAX_PIECE_ROWS = 10
left = int(left)

def dying(call):
    def called(*args, **more):
        global left
        left -= 1
        if left == 0 and point.startswith("before"):
            os.kill(os.getpid(), signal.SIGKILL)
        result = call(*args, **more)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return called

owner, name = {"append": (Lake, "append"), "rejects": (Rejects, "add"),
               "checkpoint": (Checkpoint, "write")}[point.split("-")[1]]
setattr(owner, name, dying(getattr(owner, name)))
import_command.bring_in(Settings(home=Path(home)), form, Path(path), to="lake")
"""


def event(number: int) -> dict:
    """Every tenth says a dwell that no contract takes; even ones are impressions."""
    at = AT + timedelta(minutes=17 * number)
    kind = "impression" if number % 2 == 0 else "click"
    return {
        "event_id": f"e{number}",
        "event_type": kind,
        "user_id": f"u{number % 7}",
        "item_id": "i",
        "position": -1 if number in BAD else number,
        "occurred_at": at,
        "accepted_at": at,
    }


@pytest.fixture
def jsonl_file(tmp_path: Path) -> Path:
    rows = [json.dumps(event(n), default=datetime.isoformat) for n in range(ROWS)]
    (tmp_path / "events.jsonl").write_text("\n".join(rows) + '\n{"event_id": "cut')
    return tmp_path / "events.jsonl"


@pytest.fixture
def parquet_file(tmp_path: Path) -> Path:
    rows = [event(n) | {"event_type": "click"} for n in range(ROWS)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "interactions.parquet", row_group_size=64)
    return tmp_path / "interactions.parquet"


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_killed_at_every_kind_of_point_it_keeps_each_row_and_each_reject_once(
    form: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(f"{form}_file")
    settings = Settings(home=tmp_path / "home")
    program = tmp_path / "import_and_die.py"
    program.write_text(IMPORT_AND_DIE)
    for point in ("before-append-3", "after-append-2", "after-rejects-2", "before-checkpoint-2"):
        kind, at = point.rsplit("-", 1)
        command = [sys.executable, str(program), str(settings.home), form, str(path), kind, at]
        done = subprocess.run(command, check=False, capture_output=True, env=dict(os.environ))
        assert done.returncode == -9, done.stderr.decode()
    outcome = bring_in(settings, form, path, to="lake")
    assert 0 < outcome.new.total() < ROWS - len(BAD)
    with Lake(settings.place.lake).connect() as lake:
        stored = lake.execute(
            "SELECT event_id FROM _interactions UNION ALL SELECT event_id FROM _impressions"
        ).fetchall()
    assert sorted(row[0] for row in stored) == sorted(f"e{n}" for n in range(ROWS) if n not in BAD)
    refused = [json.loads(line) for line in outcome.rejects.path.read_text().splitlines()]
    cut = [ROWS + 1] if form == "jsonl" else []
    assert [row["line"] for row in refused] == [n + 1 for n in BAD] + cut
    assert all(row["file"] == str(path) and row["text"] for row in refused)
    assert all("position" in row["reason"] for row in refused[: len(BAD)])
    again = bring_in(settings, form, path, to="lake")
    assert again.new.total() == 0
    assert again.known.total() == ROWS - len(BAD)
    assert again.rejects.count == len(refused)
