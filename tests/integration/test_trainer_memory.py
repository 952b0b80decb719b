"""A log larger than memory is streamed: what training holds does not grow with it."""

from __future__ import annotations

import subprocess
import sys

LIMIT_SHARE = 0.25
"""Of the examples' size in memory, which a run may grow by."""

PROGRAM = """
import resource, sys, tempfile
from pathlib import Path
import numpy as np
import torch
from feedrank_core.features.encoding import FeatureSchema, encode_items
from feedrank_trainer.comparison import baselines, measure
from feedrank_trainer.examples import Shards, write_shard
from feedrank_trainer.holdout import holdout_from
from feedrank_trainer.configuration import TrainingConfig
from feedrank_trainer.training import fit

NUM_ITEMS, ROWS, READERS = 1_000, 1 << 16, 1 << 12
columns = {"item_id": [str(n) for n in range(NUM_ITEMS)]}
schema = FeatureSchema.fit(columns, {})

def shard(number):
    rng = np.random.default_rng(number)
    user = np.sort(rng.integers(0, READERS, ROWS)) + number * READERS
    wide = (ROWS, 50)
    return {
        "user": user, "at_s": np.tile(np.linspace(0, 1, 16), ROWS // 16),
        "positive": rng.integers(0, NUM_ITEMS, ROWS), "history": np.full(wide, -1),
        "history_actions": np.zeros(wide, np.int64), "history_ages_s": np.zeros(wide, np.float32),
        "profile": np.zeros((ROWS, 3), np.int64), "interests": np.zeros((ROWS, 8), np.int64),
        "dense": np.zeros((ROWS, 1), np.float32),
    }

def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

def run(folder, numbers):
    paths = tuple(folder / f"{n:05d}.parquet" for n in numbers)
    holdout = holdout_from(paths, NUM_ITEMS, start_s=0.9, stop_s=2.0, seed=1)
    measure(holdout, baselines(holdout)["popularity"])
    config = TrainingConfig(epochs=1, batch_size=128, num_uniform=64, max_steps=20)
    fit(Shards(paths, stop_s=0.9), encode_items(schema, columns), schema, config=config, seed=1)
    return peak_mb()

with tempfile.TemporaryDirectory() as name:
    folder, count = Path(name), 12
    for number in range(count):
        examples = shard(number)
        write_shard(folder / f"{number:05d}.parquet", examples)
    size_mb = sum(v.nbytes for v in examples.values()) / 2**20
    del examples
    small = run(folder, range(2))
    print(small, run(folder, range(count)), (count - 2) * size_mb)
"""


def test_what_training_holds_does_not_grow_with_the_log():
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True
    )
    small_mb, large_mb, more_mb = map(float, answer.stdout.split())
    assert more_mb > 500
    assert large_mb - small_mb < LIMIT_SHARE * more_mb, answer.stdout
