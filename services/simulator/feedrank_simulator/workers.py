"""Processes that make parts of a history beside each other."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing.connection import wait
from pathlib import Path

import pyarrow as pa
from threadpoolctl import threadpool_limits

from feedrank_simulator.mapped import Mapped
from feedrank_simulator.parts import Part, write_part
from feedrank_simulator.plan import Plan
from feedrank_simulator.policy import Shelf

_ORPHANED = 1
_work: list[tuple[Shelf, Plan, Path]] = []
"""What this worker works on, set once when it begins."""


def make_parts(
    stored: Mapped, plan: Plan, parts: Sequence[Part], out: Path, *, workers: int
) -> Iterator[Part]:
    """Make the parts and yield each as it is done; one worker is this process.

    Arithmetic runs on one thread in each, so that rounding is the same however many work.
    Raises: OSError, concurrent.futures.process.BrokenProcessPool where a worker was killed.
    """
    if workers == 1:
        shelf = stored.open()
        with threadpool_limits(1):
            for part in parts:
                write_part(shelf, plan, part, out)
                yield part
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, _begin, (stored, plan, out)) as pool:
        try:
            for done in as_completed([pool.submit(_make, part) for part in parts]):
                yield done.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _begin(stored: Mapped, plan: Plan, out: Path) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    threadpool_limits(1)
    pa.set_cpu_count(1)
    _work[:] = [(stored.open(), plan, out)]


def _end_with_parent() -> None:
    """A parent that is killed tells nobody, and its workers would wait for parts for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(_ORPHANED)


def _make(part: Part) -> Part:
    shelf, plan, out = _work[0]
    write_part(shelf, plan, part, out)
    return part
