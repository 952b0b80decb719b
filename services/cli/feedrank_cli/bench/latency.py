"""How long one request to an exported model takes."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from feedrank_cli.bench.report import Report

WARMING = 50


def tell_latency(report: Report, name: str, ask: Callable[[int], object], *, requests: int) -> None:
    """Add the median and the p99 of `requests` calls, each told its number, after some to warm."""
    took_ms = []
    for number in range(WARMING + requests):
        began = time.perf_counter()
        ask(number)
        took_ms.append(1e3 * (time.perf_counter() - began))
    p50, p99 = np.percentile(took_ms[WARMING:], (50, 99))
    report.figure(f"{name}_p50_ms", float(p50))
    report.figure(f"{name}_p99_ms", float(p99))
