"""What processes that train together tell each other: the same as one would know alone."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import json, sys
import numpy as np, torch
from feedrank_trainer.ranks import joined

def rows(of):
    ids = torch.tensor([list(of)])
    return torch.sparse_coo_tensor(ids, torch.tensor(list(of.values())), (9, 2)).coalesce()

with joined() as ranks:
    mine = ranks.rank
    sparse = rows([{1: [2.0, 4.0], 3: [1.0, 1.0]}, {3: [3.0, 5.0], 8: [2.0, 2.0]}][mine])
    dense, mean = ranks.average([torch.full((2, 3), float(mine)), sparse])
    assert ranks.average([]) == []
    steps = list(ranks.together(iter(range(3 + mine))))
    told = ranks.told(lambda: "the first says")
    found = {
        "dense": dense.tolist(),
        "rows": dict(zip(mean.indices()[0].tolist(), mean.values().tolist())),
        "is_coalesced": mean.is_coalesced(),
        "steps": steps,
        "sum": ranks.sum(np.array([mine, 1.0])).tolist(),
        "gathered": ranks.gather({"rank": mine}),
        "share": ranks.share(["a", "b", "c"]),
        "told": told,
    }
    found = ranks.gather(found)
    if ranks.is_first:
        print(json.dumps(found))
"""


def test_processes_average_count_and_stop_together(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    answer = subprocess.run(
        [sys.executable, *command, str(program)], check=True, capture_output=True, text=True
    )
    first, second = json.loads(answer.stdout.splitlines()[-1])
    assert (first.pop("share"), second.pop("share")) == (["a", "c"], ["b"])
    assert first == second
    assert first["dense"] == [[0.5] * 3] * 2
    assert first["rows"] == {"1": [1.0, 2.0], "3": [2.0, 3.0], "8": [1.0, 1.0]}
    assert first["is_coalesced"]
    assert first["steps"] == [0, 1, 2]
    assert first["sum"] == [1.0, 2.0]
    assert first["gathered"] == [{"rank": 0}, {"rank": 1}]
    assert first["told"] == "the first says"
