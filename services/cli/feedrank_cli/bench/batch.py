"""Ranks 1M items for 100k users by the batch ranker's own index; the floor is torch mm + topk.

The vectors look trained: coordinates have a heavy-tailed spectrum (a few directions carry most
of the variance, as in factorised logs), items have popularity in their norm and noise of their
own, and users are mixtures of tastes plus noise, never copies of items. Separated clusters would
flatter every engine.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from feedrank_core.runtime.home import Home

from feedrank_cli.bench.report import BenchCannotRun, Report

NAME = "batch"
HELP = "The batch ranker's index against torch matmul + topk: recall@500 and users a second."

DIM = 64
K = 500
AUDITED = 256
CHUNK = 2048
RECALL_BOUND = 0.95
SPEEDUP_BOUND = 30.0
SPECTRUM_EXPONENT = 0.7
"""Singular values fall as rank^-0.7, between those of factorised MovieLens and news logs."""

FLOOR_PROGRAM = """
import json, sys, time
import numpy, torch
users, items = (torch.from_numpy(numpy.load(path)) for path in sys.argv[1:3])
k = int(sys.argv[3])
step = 64
torch.topk(users[:step] @ items.T, k)
began = time.perf_counter()
top = [torch.topk(users[i:i + step] @ items.T, k).indices for i in range(0, len(users), step)]
print(json.dumps({"seconds": time.perf_counter() - began}))
numpy.save(sys.argv[4], torch.cat(top).numpy().astype("int32"))
"""


def run(home: Home, *, quick: bool, seed: int) -> Report:
    """100k users x 1M items; quick: 20k x 200k, where the floor is nearer and no ratio binds."""
    try:
        from feedrank_batch_ranker.indexing import choose_engine, engine
        from feedrank_batch_ranker.settings import Settings
    except ImportError as error:
        raise BenchCannotRun(f"the batch ranker is not installed: {error}") from error
    num_users, num_items = (20_000, 200_000) if quick else (100_000, 1_000_000)
    user_UD, item_ND = trained_looking(num_users, num_items, seed=seed)
    report = Report(name=NAME, seed=seed)
    report.figure("users", num_users)
    report.figure("items", num_items)
    began = time.perf_counter()
    index = engine(choose_engine(num_items, Settings(home=home.root))).build(item_ND)
    report.figure("build_s", time.perf_counter() - began)
    began = time.perf_counter()
    for start in range(0, num_users, CHUNK):
        index.search(user_UD[start : start + CHUNK], K)
    per_s = num_users / (time.perf_counter() - began)
    report.figure("users_per_s", per_s)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    report.figure("peak_memory_mb", peak)
    audited = np.random.default_rng(seed).choice(num_users, AUDITED, replace=False)
    floor_s, exact_BK = exact_floor(user_UD[audited], item_ND)
    found_BK, _ = index.search(user_UD[audited], K)
    report.figure("recall_at_500", recall(found_BK, exact_BK))
    report.floor("torch_users_per_s", AUDITED / floor_s)
    report.figure("speedup", per_s / (AUDITED / floor_s))
    report.bound("recall_at_500", ">=", RECALL_BOUND)
    if not quick:
        report.bound("speedup", ">=", SPEEDUP_BOUND)
    return report


def recall(found_BK: np.ndarray, exact_BK: np.ndarray) -> float:
    """Share of the exact best that was found."""
    pairs = zip(found_BK, exact_BK, strict=True)
    return sum(len(np.intersect1d(found, exact)) for found, exact in pairs) / exact_BK.size


def trained_looking(
    num_users: int, num_items: int, *, seed: int, num_tastes: int = 4096
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors as the towers give them. Shapes: (U, 64) and (N, 64) float32."""
    chance = np.random.default_rng(seed)
    scale_D = np.arange(1, DIM + 1, dtype=np.float32) ** -SPECTRUM_EXPONENT
    taste_TD = chance.standard_normal((num_tastes, DIM), np.float32) * scale_D

    def around(count: int, mixed: int, noise: float) -> np.ndarray:
        vectors = chance.standard_normal((count, DIM), np.float32) * scale_D * np.float32(noise)
        for _ in range(mixed):
            vectors += taste_TD[chance.integers(num_tastes, size=count)] / np.float32(mixed**0.5)
        return vectors

    item_ND = around(num_items, 1, 0.7)
    item_ND *= chance.lognormal(0, 0.15, size=(num_items, 1)).astype(np.float32)
    return around(num_users, 3, 0.5), item_ND


def exact_floor(query_BD: np.ndarray, item_ND: np.ndarray) -> tuple[float, np.ndarray]:
    """Seconds and result of torch, in a process of its own: the ranker never loads torch."""
    with TemporaryDirectory() as folder:
        users, items, top = (str(Path(folder) / f"{n}.npy") for n in ("users", "items", "top"))
        np.save(users, query_BD)
        np.save(items, item_ND)
        command = [sys.executable, "-c", FLOOR_PROGRAM, users, items, str(K), top]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or ["no message"]
            raise BenchCannotRun(f"the torch floor did not run: {last[0]}")
        return json.loads(done.stdout.splitlines()[-1])["seconds"], np.load(top)
