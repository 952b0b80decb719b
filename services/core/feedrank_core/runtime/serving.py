"""Starts HTTP on a port: a service's application, or the probes of a process without one."""

from __future__ import annotations

import errno
import os
import socket
import sys
import tempfile
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import NoReturn

import uvicorn
from fastapi import FastAPI
from uvicorn.supervisors import Multiprocess

from feedrank_core.runtime.metrics import EXPOSITION_TYPE, MULTIPROCESS_VARIABLE, Metrics

PORT_IN_USE = 3
"""Exit code when the address cannot be had; uvicorn's own for a failed start."""
BACKLOG = 2048
SHUTDOWN_S = 5


def serve(app: FastAPI | str, host: str, port: int, workers: int = 1) -> None:
    """Serve until told to stop. Blocks.

    More than one worker needs an import string of a factory, `package.app:create`; their metrics
    are summed at `/metrics`. Exits with PORT_IN_USE and one line when the address cannot be had.
    """
    listener = _bind(host, port)
    config = uvicorn.Config(
        app,
        factory=isinstance(app, str),
        workers=workers,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
        backlog=BACKLOG,
    )
    if workers == 1:
        server = uvicorn.Server(config)
        server.run(sockets=[listener])
        if not server.started:
            sys.exit(PORT_IN_USE)
        return
    with tempfile.TemporaryDirectory(prefix="feedrank-metrics-") as folder:
        os.environ[MULTIPROCESS_VARIABLE] = folder
        Multiprocess(config, sockets=[listener]).run()


def start_probe_server(
    metrics: Metrics, ready: Callable[[], str | None], host: str, port: int
) -> ThreadingHTTPServer:
    """Answer `/healthz`, `/readyz` and `/metrics` from a thread; `shutdown()` ends it.

    `ready` is called from that thread. Exits as `serve` does when the port is in use.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, media_type, body = _probe(self.path, metrics, ready)
            self.send_response(status)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    ThreadingHTTPServer.allow_reuse_address = True
    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        _refuse(host, port, error)
    Thread(target=server.serve_forever, name="probes", daemon=True).start()
    return server


def _probe(path: str, metrics: Metrics, ready: Callable[[], str | None]) -> tuple[int, str, bytes]:
    if path == "/healthz":
        return 200, "text/plain", b"ok\n"
    if path == "/metrics":
        return 200, EXPOSITION_TYPE, metrics.exposition()
    if path != "/readyz":
        return 404, "text/plain", b"not found\n"
    try:
        reason = ready()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    return (
        (200, "text/plain", b"ready\n") if reason is None else (503, "text/plain", reason.encode())
    )


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        _refuse(host, port, error)
    listener.set_inheritable(True)
    return listener


def _refuse(host: str, port: int, error: OSError) -> NoReturn:
    why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be had ({error.strerror})"
    sys.stderr.write(
        f"error: {host}:{port} {why}; stop what listens there or set another port"
        " (FEEDRANK_<SERVICE>_PORT)\n"
    )
    sys.exit(PORT_IN_USE)
