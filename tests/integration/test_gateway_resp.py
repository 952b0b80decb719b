"""The gateway's own Redis client on a real server: logins, databases, TLS, failures."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import trustme
from feedrank_core.runtime.valkey import Role, valkey_command
from feedrank_gateway.adapters.resp import RespClient, RespError
from processes import free_port

PASSWORD = "open sesame"


@pytest.fixture
def port(tmp_path) -> Iterator[int]:
    """A server with a password, a user and a socket file."""
    port = free_port()
    command = valkey_command(Role.CACHE, port=port, folder=tmp_path)
    command += ["--requirepass", PASSWORD, "--unixsocket", str(tmp_path / "s")]
    command += ["--user", "bob", "on", ">builder", "~*", "+@all"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    with redis.Redis(port=port, password=PASSWORD) as client:
        while process.poll() is None:
            with contextlib.suppress(redis.ConnectionError):
                client.ping()
                break
        client.set("number", 0)
        client.select(3)
        client.set("number", 3)
    yield port
    process.kill()
    process.wait()


async def _ask(url: str, *command: str) -> Any:
    client = RespClient(url, timeout_s=2.0)
    try:
        return await client.call(*command)
    finally:
        await client.close()


@contextlib.asynccontextmanager
async def _behind_tls(port: int, authority: trustme.CA) -> AsyncIterator[int]:
    """A port that speaks TLS and passes everything on to the server."""

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while chunk := await source.read(65_536):
                sink.write(chunk)
        sink.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, to_server), pump(from_server, writer))
        for stream in (to_server, writer):
            with contextlib.suppress(ConnectionError):
                await stream.wait_closed()
        ended.release()

    ended = asyncio.Semaphore(0)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    server = await asyncio.start_server(serve, "localhost", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]
        await ended.acquire()


async def test_a_password_and_a_database_of_the_url_are_used(port):
    assert await _ask(f"redis://:open%20sesame@127.0.0.1:{port}/0", "GET", "number") == b"0"
    assert await _ask(f"redis://:open%20sesame@127.0.0.1:{port}/3", "GET", "number") == b"3"


async def test_a_user_of_the_url_is_used(port):
    assert await _ask(f"redis://bob:builder@127.0.0.1:{port}/3", "GET", "number") == b"3"


async def test_a_socket_file_is_reached(port, tmp_path):
    assert await _ask(f"unix://:open%20sesame@{tmp_path / 's'}?db=3", "GET", "number") == b"3"


@pytest.mark.parametrize("login", ["", ":wrong@", "bob:wrong@"])
async def test_a_wrong_login_is_an_error_at_every_call(port, login):
    client = RespClient(f"redis://{login}127.0.0.1:{port}/0", timeout_s=2.0)
    for _ in range(2):
        with pytest.raises(RespError, match=r"NOAUTH|WRONGPASS"):
            await client.call("GET", "number")
    await client.close()
    gc.collect()  # a connection that nobody closed would warn here, and a warning is an error


# asyncio's server leaves the transport of a handshake that the client refused to the collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_tls_trusts_the_authority_of_the_url_and_no_other(port, tmp_path):
    authority, other = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    other.cert_pem.write_to_path(tmp_path / "other.pem")
    async with _behind_tls(port, authority) as secure:
        url = f"rediss://:open%20sesame@localhost:{secure}/3"
        assert await _ask(f"{url}?ssl_ca_certs={tmp_path / 'ca.pem'}", "GET", "number") == b"3"
        for trusted in (f"?ssl_ca_certs={tmp_path / 'other.pem'}", ""):
            with pytest.raises(ssl.SSLCertVerificationError):
                await _ask(url + trusted, "GET", "number")


async def test_an_option_it_does_not_know_stops_the_start_by_name(tmp_path: Path):
    with pytest.raises(ValueError, match="socket_timeout"):
        RespClient("redis://127.0.0.1/0?socket_timeout=2", timeout_s=1.0)


async def test_answers_of_many_callers_are_never_swapped(port):
    client = RespClient(f"redis://:open%20sesame@127.0.0.1:{port}/0", timeout_s=5.0)

    async def echo(number: int) -> bool:
        answers = [await client.call("ECHO", f"{number}-{i}") for i in range(20)]
        return answers == [b"%d-%d" % (number, i) for i in range(20)]

    assert all(await asyncio.gather(*map(echo, range(100))))
    await client.close()


async def test_a_late_answer_never_reaches_the_next_caller(port):
    client = RespClient(f"redis://:open%20sesame@127.0.0.1:{port}/0", timeout_s=0.05)
    with pytest.raises(TimeoutError):
        await client.call("BLPOP", "nothing", "0.2")
    assert await client.call("ECHO", "mine") == b"mine"
    await client.close()


async def test_each_call_has_the_whole_time_however_many_came_before(port):
    client = RespClient(f"redis://:open%20sesame@127.0.0.1:{port}/0", timeout_s=0.5)
    for _ in range(8):
        assert await client.call("BLPOP", "nothing", "0.1") is None
    await client.close()


async def test_an_overdue_call_ends_those_behind_it_too(port):
    client = RespClient(f"redis://:open%20sesame@127.0.0.1:{port}/0", timeout_s=0.2)
    calls = [client.call("BLPOP", "nothing", "0"), client.call("ECHO", "behind")]
    ended = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(error) for error in ended] == [TimeoutError, TimeoutError]
    assert await client.call("ECHO", "again") == b"again"
    await client.close()


async def test_calls_that_wait_fail_when_the_server_ends_the_connection(port):
    client = RespClient(f"redis://:open%20sesame@127.0.0.1:{port}/0", timeout_s=5.0)
    number = await client.call("CLIENT", "ID")
    waiting = asyncio.ensure_future(client.call("BLPOP", "nothing", "0"))
    with redis.Redis(port=port, password=PASSWORD) as admin:
        await asyncio.sleep(0)
        admin.client_kill_filter(_id=str(number))
    with pytest.raises(OSError):
        await waiting
    assert await client.call("ECHO", "again") == b"again"
    await client.close()
