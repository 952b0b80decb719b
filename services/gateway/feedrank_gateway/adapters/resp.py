"""One multiplexed connection to Redis for the request path.

redis-py takes a connection from a pool for every call; here callers share one, their calls leave
together, and answers come back in order: p99 of a feed is 2.0 times the bare endpoint's instead of
2.7 (docs/measurements.md, 2026-11-24; decision 4). Only plain commands are supported.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import Any, cast

import hiredis
from redis.asyncio.connection import SSLConnection, parse_url

_OPTIONS = {"host", "port", "db", "username", "password", "path", "ssl_ca_certs"} | {
    "connection_class"
}


class RespError(ConnectionError):
    """The server refused a command, or the connection is gone."""


class RespClient:
    """Connects at the first call, again after a failure. For use from one event loop.

    The URL is one of redis-py's: redis, rediss (with `ssl_ca_certs` for a CA of one's own) or
    unix; with user, password and database. Raises: ValueError for another option.
    """

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self._where, self._timeout_s = parse_url(url), timeout_s
        if unknown := self._where.keys() - _OPTIONS:
            raise ValueError(f"cache_url: {sorted(unknown)[0]} is not supported here; leave it out")
        self._is_secure = self._where.get("connection_class") is SSLConnection
        self._connection: _Connection | None = None
        self._connecting = asyncio.Lock()

    async def call(self, *command: str | bytes | int) -> Any:
        """The answer, with bytes as bytes. Raises: RespError, OSError, TimeoutError.

        A call that times out ends the connection, because its answer may still come.
        """
        connection = self._connection
        if connection is None or connection.closed:
            async with asyncio.timeout(self._timeout_s):
                connection = await self._connect()
        return await connection.send(command)

    async def close(self) -> None:
        """End the connection, and wait until its socket is closed."""
        if self._connection is not None:
            self._connection.abort()
            await self._connection.lost.wait()

    async def _connect(self) -> _Connection:
        async with self._connecting:
            if self._connection is not None and not self._connection.closed:
                return self._connection
            where, loop = self._where, asyncio.get_running_loop()
            if path := where.get("path"):
                _, connection = await loop.create_unix_connection(self._new, path)
            else:
                _, connection = await loop.create_connection(
                    self._new,
                    where.get("host", "localhost"),
                    where.get("port", 6379),
                    ssl=self._context() if self._is_secure else None,
                )
            try:
                await self._greet(connection)
            except BaseException:
                connection.abort()
                raise
            self._connection = connection
            return connection

    def _new(self) -> _Connection:
        return _Connection(self._timeout_s)

    def _context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self._where.get("ssl_ca_certs"))

    async def _greet(self, connection: _Connection) -> None:
        """Log in and choose the database, as the URL says."""
        where = self._where
        if password := where.get("password"):
            await connection.send(("AUTH", where.get("username") or "default", password))
        if number := where.get("db"):
            await connection.send(("SELECT", number))


class _Connection(asyncio.Protocol):
    """Answers to `send` in the order of the calls, each within `timeout_s`.

    What is sent in one turn of the event loop leaves as one write, and one timer watches over the
    oldest call: a call of its own pays for neither.
    """

    def __init__(self, timeout_s: float) -> None:
        self.closed = False
        self.lost = asyncio.Event()
        """Set once the transport has let go of its socket."""
        self._timeout_s = timeout_s
        self._reader = hiredis.Reader(replyError=RespError)
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        """Answers to come, and until when."""
        self._timer: asyncio.TimerHandle | None = None
        self._outgoing: list[bytes] = []
        self._transport: asyncio.WriteTransport | None = None
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is up."""
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's is no subclass

    def send(self, command: tuple[str | bytes | int, ...]) -> asyncio.Future[Any]:
        """Write within this turn of the loop; the future is the answer."""
        answer = self._loop.create_future()
        if self.closed or self._transport is None:
            answer.set_exception(RespError("the connection is closed"))
            return answer
        self._waiting.append((answer, self._loop.time() + self._timeout_s))
        if self._timer is None:
            self._timer = self._loop.call_later(self._timeout_s, self._look)
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(hiredis.pack_command(command))  # type: ignore[arg-type]
        return answer

    def data_received(self, data: bytes) -> None:
        """Give finished answers to whoever waits for them."""
        if self.closed:
            return
        self._reader.feed(data)
        while (answer := self._reader.gets()) is not False:
            waiting, _ = self._waiting.popleft()
            if waiting.done():
                continue
            if isinstance(answer, Exception):
                waiting.set_exception(answer)
            else:
                waiting.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        """Everybody who waits is told."""
        self.lost.set()
        self._end(RespError(str(exc or "the connection was closed")))

    def abort(self) -> None:
        """End it now; late answers are never seen."""
        self._end(RespError("the connection was closed"))
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        if not self.closed and self._transport is not None:
            self._transport.write(b"".join(self._outgoing))
        self._outgoing.clear()

    def _look(self) -> None:
        """End the connection when the oldest call is overdue, else look again when it will be."""
        self._timer = None
        if not self._waiting:
            return
        left_s = self._waiting[0][1] - self._loop.time()
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._look)
            return
        self._end(TimeoutError("no answer in time"))
        self.abort()

    def _end(self, error: Exception) -> None:
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        while self._waiting:
            waiting, _ = self._waiting.popleft()
            if not waiting.done():
                waiting.set_exception(error)
