"""The first step of a daily run: pins what the run learns from, once the lake holds it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

import orjson
from feedrank_core.runtime.atomic import write_atomically
from feedrank_core.runtime.bus import Bus
from feedrank_core.runtime.lake import Lake

from feedrank_ingestion.lake_sink import SINK_TOPICS, missing

OFFSETS = "offsets.json"
POLL_S = 0.25


class CollectTimeoutError(RuntimeError):
    """The lake sink did not reach the bus's end in time; the message says how far it is."""


def collect(bus: Bus, lake: Lake, run: Path, *, timeout_s: float) -> dict[str, object]:
    """Write `offsets.json`: the instant of the run and, by partition, the first offset beyond it.

    The instant is taken before the offsets are read: what was accepted by then and published
    after is in the next run. Blocks until the lake holds everything below the offsets.

    Raises: CollectTimeoutError, BusUnavailableError.
    """
    as_of = datetime.now(UTC)
    ends = {topic: bus.end_offsets(topic) for topic in SINK_TOPICS}
    deadline = time.monotonic() + timeout_s
    while behind := {t.name: m for t in SINK_TOPICS if (m := missing(lake, t, ends[t]))}:
        if time.monotonic() > deadline:
            counts = ", ".join(f"{name} {sum(m.values())}" for name, m in behind.items())
            raise CollectTimeoutError(
                f"after {timeout_s:.0f} s the lake still lacks records: {counts}; look at"
                " `feedrank status` and at the log of lake_sink"
            )
        time.sleep(POLL_S)
    offsets = {f"{t.name}/{p}": end for t, by_p in ends.items() for p, end in by_p.items()}
    pinned: dict[str, object] = {"as_of": as_of.isoformat(), "offsets": offsets}
    run.mkdir(parents=True, exist_ok=True)
    write_atomically(run / OFFSETS, orjson.dumps(pinned, option=orjson.OPT_INDENT_2))
    return pinned
