"""Both OpenAPI documents are true: nothing that they allow, or forbid, ends in a 5xx."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from processes import Service
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
OPERATIONS = {
    "gateway": {"GET /v1/users/{user_id}/feed"},
    "intake": {
        "POST /v1/events",
        "POST /v1/items:batch",
        "POST /v1/users:batch",
        "PUT /v1/items/{item_id}",
        "PUT /v1/users/{user_id}",
        "DELETE /v1/items/{item_id}",
        "DELETE /v1/users/{user_id}",
        "POST /v1/users/{user_id}:merge",
        "GET /v1/users/{user_id}/erasure",
        "GET /v1/receipts/{receipt_id}",
    },
}
SLOW = [
    HealthCheck.too_slow,
    HealthCheck.filter_too_much,
    HealthCheck.data_too_large,
    HealthCheck.large_base_example,
]
REFUSALS = {"gateway": {422}, "intake": {422, 400}}


@pytest.fixture(params=sorted(OPERATIONS))
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    service: Service = request.getfixturevalue(request.param)
    yield service
    assert "unhandled_error" not in service.said()


def test_no_request_ends_in_a_server_error(service: Service, request) -> None:
    document: Any = schemathesis.openapi.from_url(f"{service.url}/openapi.json")
    operations = [found.ok() for found in document.get_all_operations()]
    name = request.node.callspec.params["service"]
    assert {operation.label for operation in operations} >= OPERATIONS[name]
    statuses: set[int] = set()
    for operation in operations:
        cases = st.one_of(
            [operation.as_strategy(generation_mode=mode) for mode in schemathesis.GenerationMode]
        )

        @settings(max_examples=60, deadline=None, suppress_health_check=SLOW)
        @given(case=cases)
        def no_server_error(case: Any) -> None:
            statuses.add(case.call_and_validate(checks=CHECKS).status_code)

        no_server_error()
    assert statuses & {200, 202}
    assert statuses & REFUSALS[name]


def test_the_document_names_every_model_that_it_refers_to(service: Service) -> None:
    document: Any = schemathesis.openapi.from_url(f"{service.url}/openapi.json")
    defined = document.raw_schema["components"]["schemas"]
    text = str(document.raw_schema)
    referred = {part.split("'")[0] for part in text.split("#/components/schemas/")[1:]}
    assert "Problem" in referred <= set(defined)
