"""`/healthz`, `/readyz` and `/metrics` of a process without an HTTP application of its own."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import NoReturn

from feedrank_core.runtime.metrics import EXPOSITION_TYPE, Metrics
from feedrank_core.runtime.problems import readiness

PORT_IN_USE = 3
"""Exit code when the address cannot be had; uvicorn's own for a failed start."""


@contextmanager
def probes(
    metrics: Metrics, ready: Callable[[], str | None], host: str, port: int
) -> Iterator[int]:
    """Answer `/healthz`, `/readyz` and `/metrics` from a thread meanwhile; gives the port.

    `ready` is called from that thread. Exits as `serve` does when the port is in use.
    """
    server = _probe_server(metrics, ready, host, port)
    Thread(target=server.serve_forever, name="probes", daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def _probe_server(
    metrics: Metrics, ready: Callable[[], str | None], host: str, port: int
) -> ThreadingHTTPServer:

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
        return ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        refuse(host, port, error)


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
    return readiness(reason)


def refuse(host: str, port: int, error: OSError) -> NoReturn:
    """End the process with one line and PORT_IN_USE."""
    why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be had ({error.strerror})"
    sys.stderr.write(
        f"error: {host}:{port} {why}; stop what listens there or set another port"
        " (FEEDRANK_<SERVICE>_PORT)\n"
    )
    sys.exit(PORT_IN_USE)
