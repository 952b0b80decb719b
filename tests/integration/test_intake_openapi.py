"""The intake's OpenAPI document is true: nothing that it allows, or forbids, ends in a 5xx."""

from __future__ import annotations

import time
from collections.abc import Iterator
from threading import Thread
from typing import Any

import pytest
import schemathesis
import uvicorn
from feedrank_core.runtime.bus_memory import MemoryBus
from feedrank_ingestion.app import create_intake
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [
    not_a_server_error,
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
]


@pytest.fixture(scope="module")
def document() -> Iterator[Any]:
    bus = MemoryBus()
    bus.create_topics()
    config = uvicorn.Config(create_intake(bus), host="127.0.0.1", port=0, log_config=None)
    server = uvicorn.Server(config)
    thread = Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")
    server.should_exit = True
    thread.join()


def test_no_request_ends_in_a_server_error(document: Any) -> None:
    operations = [result.ok() for result in document.get_all_operations()]
    assert len(operations) == 6
    for operation in operations:

        @settings(
            max_examples=40,
            deadline=None,
            suppress_health_check=[
                HealthCheck.too_slow,
                HealthCheck.filter_too_much,
                HealthCheck.data_too_large,
                HealthCheck.large_base_example,
            ],
        )
        @given(case=operation.as_strategy())
        def no_server_error(case: Any) -> None:
            case.call_and_validate(checks=CHECKS)

        no_server_error()


def test_the_document_names_every_model_that_it_refers_to(document: Any) -> None:
    text = str(document.raw_schema)
    defined = document.raw_schema["components"]["schemas"]
    referred = {part.split("'")[0] for part in text.split("#/components/schemas/")[1:]}
    assert referred <= set(defined)
    assert {"EventBatch", "ItemBody", "Problem", "BatchResult"} <= referred
