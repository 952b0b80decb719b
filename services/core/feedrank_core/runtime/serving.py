"""Serves an application on a port, by one worker process or several."""

from __future__ import annotations

import os
import socket
import sys
import tempfile

import uvicorn
from fastapi import FastAPI
from uvicorn.supervisors import Multiprocess

from feedrank_core.runtime.metrics import MULTIPROCESS_VARIABLE
from feedrank_core.runtime.probes import PORT_IN_USE, refuse

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


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        refuse(host, port, error)
    listener.set_inheritable(True)
    return listener
