"""Starts, watches and ends the processes of one machine, on supervisor."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault, ServerProxy

import psutil
from feedrank_core.runtime.secret_file import write_secret

from feedrank_cli.errors import CommandError
from feedrank_cli.roster import Process
from feedrank_cli.settings import STATE_FILE, Settings

MARK = "FEEDRANK_SUPERVISED"
"""In the environment of every process that `up` starts: the run folder it belongs to."""
MAX_SOCKET_PATH = 100
STOP_TIMEOUT_S = 20.0

CONFIG = """\
[unix_http_server]
file={socket}
chmod=0700
[supervisord]
logfile={run}/supervisord.log
logfile_maxbytes=5MB
pidfile={run}/supervisord.pid
childlogdir={run}
nodaemon=true
silent=true
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://{socket}
"""

PROGRAM = """\
[program:{name}]
command={command}
directory={run}
priority={priority}
autorestart=true
startsecs=1
startretries=1000000
stopwaitsecs=8
stopasgroup=true
killasgroup=true
redirect_stderr=true
stdout_logfile={logs}/{name}.log
stdout_logfile_maxbytes=20MB
stdout_logfile_backups=2
"""


class Supervisor:
    """The supervisor of one run folder. Building it touches nothing."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.run = settings.place.run
        self.logs = settings.place.logs

    @property
    def socket_path(self) -> Path:
        """Its control socket; a long home moves it to the temporary folder (108-byte limit)."""
        path = self.run / "supervisor.sock"
        if len(str(path)) <= MAX_SOCKET_PATH:
            return path
        digest = hashlib.sha256(str(self.run).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"feedrank-{os.getuid()}-{digest}.sock"

    def config(self, processes: Sequence[Process]) -> str:
        """The text of supervisord.conf."""

        def escape(value: object) -> str:
            return str(value).replace("%", "%%")

        run, logs = escape(self.run), escape(self.logs)
        parts = [CONFIG.format(socket=escape(self.socket_path), run=run)]
        parts += [
            PROGRAM.format(
                name=process.name,
                command=escape(shlex.join(process.command)),
                run=run,
                logs=logs,
                priority=10 + place,
            )
            for place, process in enumerate(processes)
        ]
        return "\n".join(parts)

    def is_running(self) -> bool:
        """Whether a supervisor answers for this run folder."""
        try:
            return self._call("getState")["statename"] in {"RUNNING", "RESTARTING"}
        except (OSError, Fault):
            return False

    def start(self, processes: Sequence[Process]) -> None:
        """Start supervisor with these processes; they may not be ready yet."""
        for folder in (self.run, self.logs, *(self.run / p.name for p in processes)):
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise CommandError(
                    f"{folder} cannot be made: {error.strerror}.",
                    "Set FEEDRANK_HOME to a folder that you may write to.",
                ) from error
        self.socket_path.unlink(missing_ok=True)
        path = self.run / "supervisord.conf"
        path.write_text(self.config(processes))
        # Its URLs hold the passwords of bus and cache.
        write_secret(self.run / STATE_FILE, self.settings.model_dump_json().encode())
        with (self.logs / "supervisord.err").open("wb") as complaints:
            daemon = subprocess.Popen(
                [sys.executable, "-m", "supervisor.supervisord", "-c", str(path)],
                env=os.environ | self.settings.environment() | {MARK: str(self.run)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=complaints,
                start_new_session=True,
            )
        deadline = time.monotonic() + 20
        while not self.is_running():
            if daemon.poll() is not None or time.monotonic() > deadline:
                said = (self.logs / "supervisord.err").read_text()[-2000:]
                self.stop()
                raise CommandError(
                    f"The supervisor did not start: {said or 'no answer within 20 s'}",
                    f"Look at {self.run}/supervisord.log.",
                )
            time.sleep(0.05)

    def states(self) -> dict[str, dict[str, Any]]:
        """By process name, what supervisor knows: statename, pid, start, description."""
        try:
            rows = self._call("getAllProcessInfo")
        except (OSError, Fault):
            return {}
        return {row["name"]: row for row in rows}

    def stop(self) -> list[int]:
        """End every process of this run folder, also those a killed supervisor left behind.

        Returns the pids that were ended. Blocks: until none of them lives.
        """
        ended = self.members()
        if self.is_running():
            # It may close the socket while it answers: then it is on its way down.
            with contextlib.suppress(OSError, Fault):
                self._call("shutdown")
            psutil.wait_procs(ended, timeout=STOP_TIMEOUT_S)
        left = {p.pid: p for p in [*ended, *self.members()] if p.is_running()}
        for process in left.values():
            _end(process)
        _, stubborn = psutil.wait_procs(list(left.values()), timeout=STOP_TIMEOUT_S)
        for process in stubborn:
            process.kill()
        psutil.wait_procs(stubborn, timeout=5)
        self.socket_path.unlink(missing_ok=True)
        (self.run / STATE_FILE).unlink(missing_ok=True)
        return [process.pid for process in ended]

    def members(self) -> list[psutil.Process]:
        """Living processes that `up` started for this run folder, found by their mark."""
        found = []
        for process in psutil.process_iter():
            try:
                marked = process.environ().get(MARK) == str(self.run)
                if marked and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return [process for process in found if process.pid != os.getpid()]

    def _call(self, method: str) -> Any:
        from supervisor.xmlrpc import SupervisorTransport

        transport = SupervisorTransport(None, None, f"unix://{self.socket_path}")
        try:
            with ServerProxy("http://127.0.0.1", transport=transport) as proxy:
                return getattr(proxy.supervisor, method)()
        finally:
            transport.close()


def _end(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.terminate()


def require_free_ports(settings: Settings, processes: Sequence[Process]) -> None:
    """Raises: CommandError naming every port that is taken or given twice, and its settings."""
    shared = [
        f"{' and '.join(variables)} name the same port, {port} of {host}"
        for (host, port), variables in settings.shared_ports().items()
    ]
    if shared:
        raise CommandError(f"Cannot start: {'; '.join(shared)}.", "Give each its own.", code=2)
    taken = {p.setting: reason for p in processes if (reason := _taken(settings, p))}
    if taken:
        raise CommandError(
            "Cannot start: " + "; ".join(taken.values()) + ".",
            f"Stop what listens there, or set {', '.join(taken)} to a free port.",
        )


def _taken(settings: Settings, process: Process) -> str | None:
    host = settings.host if process.up_path else "127.0.0.1"
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, process.port))
        except OSError as error:
            in_use = error.errno == errno.EADDRINUSE
            reason = f"is in use{_holder(process.port)}" if in_use else f"fails: {error.strerror}"
            return (
                f"port {process.port} on {host}, which {process.name} needs "
                f"({process.setting}), {reason}"
            )
    return None


def _holder(port: int) -> str:
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.pid
            if listens and connection.laddr and connection.laddr.port == port:
                return f" by pid {connection.pid} ({psutil.Process(connection.pid).name()})"
    return ""
