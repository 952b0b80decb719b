import socket
from collections.abc import AsyncIterator
from urllib.error import HTTPError
from urllib.request import urlopen

import httpx
import pytest
from feedrank_core.runtime.bus import BusUnavailableError
from feedrank_core.runtime.http import create_app
from feedrank_core.runtime.logs import hide_secrets
from feedrank_core.runtime.metrics import Metrics
from feedrank_core.runtime.probes import PORT_IN_USE, probes
from feedrank_core.runtime.problems import PROBLEM_TYPE
from feedrank_core.runtime.serving import serve
from pydantic import BaseModel


class Body(BaseModel):
    names: list[str]


def make_client(reason: str | None = None, *, public: bool = True) -> httpx.AsyncClient:
    async def ready() -> str | None:
        return reason

    app = create_app(
        title="t", metrics=Metrics("ingestion"), ready=ready, public=public, max_body_bytes=100
    )

    @app.post("/names")
    async def names(body: Body) -> int:
        return len(body.names)

    @app.get("/bug")
    async def bug() -> None:
        raise ZeroDivisionError

    @app.get("/down")
    async def down() -> None:
        raise BusUnavailableError("no answer")

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://t")


async def test_probes_answer_and_readiness_gives_its_reason() -> None:
    client = make_client("the bus is down")
    assert (await client.get("/healthz")).status_code == 200
    answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["detail"] == "the bus is down"
    assert (await make_client().get("/readyz")).status_code == 200
    assert "feedrank_ingestion_publish_seconds" in (await client.get("/metrics")).text


async def test_only_a_public_service_shows_its_documents() -> None:
    assert (await make_client().get("/openapi.json")).status_code == 200
    assert (await make_client(public=False).get("/openapi.json")).status_code == 404


@pytest.mark.parametrize(
    ("content", "field"),
    [('{"names": [1]}', "names.0"), ("{", "body"), ("[]", "body"), ("{}", "names")],
)
async def test_an_invalid_body_is_a_problem_that_names_the_field(content: str, field: str) -> None:
    answer = await make_client().post(
        "/names", content=content, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["field"] == field
    assert field in answer.json()["remedy"]


async def test_a_lone_surrogate_in_a_field_name_does_not_break_the_answer() -> None:
    answer = await make_client().post(
        "/names",
        content=b'{"names": ["\\ud800"]}',
        headers={"content-type": "application/json"},
    )
    assert answer.status_code in (200, 422)


async def test_a_large_body_is_refused_by_its_declared_length_and_while_read() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b"x" * 40

    client = make_client()
    declared = await client.post("/names", content=b"x" * 101)
    streamed = await client.post(
        "/names",
        content=chunks(),
        headers={"content-type": "application/json"},
    )
    for answer in (declared, streamed):
        assert answer.status_code == 413
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["field"] == "body"
        assert "100 bytes" in answer.json()["detail"]
    assert declared.content == streamed.content


async def test_every_other_error_is_a_problem_too() -> None:
    client = make_client()
    for path, status in (("/nowhere", 404), ("/names", 405), ("/bug", 500), ("/down", 503)):
        answer = await client.get(path)
        assert answer.status_code == status
        assert answer.json()["status"] == status
    assert (await client.get("/down")).headers["retry-after"] == "1"


def test_a_port_in_use_is_one_clear_line_and_an_exit_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit) as stop:
            serve("never:loaded", "127.0.0.1", port)
    assert stop.value.code == PORT_IN_USE
    line = capsys.readouterr().err
    assert f"127.0.0.1:{port} is in use" in line
    assert line.count("\n") == 1


async def test_a_process_without_http_answers_the_same_probes_from_a_thread() -> None:
    with probes(Metrics("ingestion"), lambda: "lake is full", "127.0.0.1", 0) as port:
        base = f"http://127.0.0.1:{port}"
        with urlopen(f"{base}/healthz") as answer:
            assert answer.status == 200
        with urlopen(f"{base}/metrics") as answer:
            assert b"feedrank_ingestion_" in answer.read()
        with pytest.raises(HTTPError, match="503") as refused:
            urlopen(f"{base}/readyz")
        assert refused.value.read() == (await make_client("lake is full").get("/readyz")).content
        assert refused.value.headers["content-type"] == PROBLEM_TYPE
        refused.value.close()
        with (
            pytest.raises(SystemExit) as stop,
            probes(Metrics("ingestion"), lambda: None, "127.0.0.1", port),
        ):
            pass
        assert stop.value.code == PORT_IN_USE
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # answers still linger
        free.bind(("127.0.0.1", port))


def test_secrets_never_reach_a_log_line() -> None:
    event = {"event": "connect", "url": "redis://:hunter2@h:1/0", "api_key": "k", "n": 1}
    event["header"] = "authorization: Bearer abc"
    hidden = str(hide_secrets(None, "info", event))
    assert "hunter2" not in hidden
    assert "'k'" not in hidden
    assert "abc" not in hidden
    assert "h:1/0" in hidden
