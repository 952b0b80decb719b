"""Who a reader of the Redis bus is: a token that tells others whether its process still lives.

A lease outlives a killed reader. On one machine nobody need wait for its end: a token names the
process, and who starts in its place sees that there is none.
"""

from __future__ import annotations

import os
import socket
import uuid

import psutil

CLOCK_S = 2.0
"""How far two readings of a process's start may lie apart: pids are used again much later."""


def token_of(member: str) -> str:
    """A token of a member in this process; two of the same name never share one."""
    started_at = psutil.Process().create_time()
    return f"{member}|{socket.gethostname()}|{os.getpid()}|{started_at:.0f}|{uuid.uuid4().hex}"


def is_of_a_dead_process(token: str) -> bool:
    """Whether its process was one of this machine and is gone; False where nobody can tell."""
    parts = token.rsplit("|", 4)
    if len(parts) != 5 or parts[1] != socket.gethostname():
        return False
    try:
        process = psutil.Process(int(parts[2]))
        is_same = abs(process.create_time() - float(parts[3])) <= CLOCK_S
        return not is_same or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False
