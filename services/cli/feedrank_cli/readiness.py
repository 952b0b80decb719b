"""Waits until every process can do its work, and shows how far each is."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import httpx
from feedrank_core.runtime.bus import BusUnavailableError
from feedrank_core.runtime.bus_open import is_kafka, open_bus
from feedrank_core.runtime.valkey import Role
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from feedrank_cli.errors import CommandError
from feedrank_cli.roster import Process
from feedrank_cli.settings import Settings
from feedrank_cli.supervision import Supervisor

READY = "ready"
CHECK_TIMEOUT_S = 2.0
MAX_REASON = 200


def check(settings: Settings, process: Process, path: str | None = None) -> str:
    """`ready`, or what stands in the way; `path` is a probe other than that of `up`."""
    if process.up_path is None:
        if process.name == Role.BUS and is_kafka(settings.bus_url):
            return _ping_kafka(settings.bus_url)
        return _ping(process.port)
    url = f"http://{settings.host}:{process.port}{path or process.up_path}"
    try:
        answer = httpx.get(url, timeout=CHECK_TIMEOUT_S, trust_env=False)
    except httpx.HTTPError:
        return "not answering yet"
    if answer.status_code == 200:
        return READY
    return _reason(answer)


def _ping(port: int) -> str:
    client = Redis(
        host="127.0.0.1", port=port, socket_timeout=1, retry=Retry(NoBackoff(), 0), protocol=3
    )
    try:
        client.ping()
    except RedisError as error:
        return str(error)[:80]
    finally:
        client.close()
    return READY


def _ping_kafka(url: str) -> str:
    bus = open_bus(url)
    try:
        bus.ping()
    except BusUnavailableError as error:
        return str(error)[:80]
    finally:
        bus.close()
    return READY


def _reason(answer: httpx.Response) -> str:
    """What the problem says; who answers without one is not ours."""
    try:
        return str(answer.json()["detail"])[:MAX_REASON]
    except (ValueError, KeyError, TypeError):
        return f"answers {answer.status_code}"


def table(rows: Sequence[tuple[Process, str, str]]) -> Table:
    """Processes with supervisor's state and their readiness."""
    view = Table(box=None, pad_edge=False)
    for heading in ("service", "port", "process", "state"):
        view.add_column(heading)
    for process, state, ready in rows:
        style = "green" if ready == READY else "yellow"
        view.add_row(process.name, str(process.port), state, f"[{style}]{escape(ready)}[/]")
    return view


def survey(
    supervisor: Supervisor, processes: Sequence[Process], path: str | None = None
) -> list[tuple[Process, str, str]]:
    """One look at every process; `path` is a probe other than that of `up`."""
    states = supervisor.states()
    rows = []
    for process in processes:
        info = states.get(process.name)
        state = f"{info['statename'].lower()} pid {info['pid']}" if info else "down"
        ready = check(supervisor.settings, process, path) if info else "down"
        rows.append((process, state, ready))
    return rows


def wait_ready(
    supervisor: Supervisor, processes: Sequence[Process], console: Console, *, timeout_s: float
) -> None:
    """Return once every process is ready. Raises: CommandError with the log of a late one."""
    if console.is_terminal:
        with Live(console=console, refresh_per_second=8, transient=True) as live:
            _wait(supervisor, processes, timeout_s, lambda rows: live.update(table(rows)))
        console.print(table(survey(supervisor, processes)))
        return
    told: set[str] = set()

    def tell(rows: Sequence[tuple[Process, str, str]]) -> None:
        for process, _, ready in rows:
            if ready == READY and process.name not in told:
                told.add(process.name)
                console.print(f"{process.name} ready on port {process.port}")

    _wait(supervisor, processes, timeout_s, tell)


def _wait(
    supervisor: Supervisor,
    processes: Sequence[Process],
    timeout_s: float,
    show: Callable[[Sequence[tuple[Process, str, str]]], None],
) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        rows = survey(supervisor, processes)
        show(rows)
        late = [(process, ready) for process, _, ready in rows if ready != READY]
        if not late:
            return
        if time.monotonic() > deadline:
            raise _too_late(supervisor, late, timeout_s)
        time.sleep(0.25)


def _too_late(
    supervisor: Supervisor, late: Sequence[tuple[Process, str]], timeout_s: float
) -> CommandError:
    process, ready = late[0]
    log = supervisor.logs / f"{process.name}.log"
    last = "\n".join(log.read_text(errors="replace").splitlines()[-15:]) if log.exists() else ""
    names = ", ".join(p.name for p, _ in late)
    return CommandError(
        f"Not ready after {timeout_s:g} s: {names}. {process.name}: {ready}.\n{last}",
        f"Read {log}, or give it longer with FEEDRANK_START_TIMEOUT_S.",
    )
