"""What real processes expose at `/metrics` is the registry: nothing beside it, nothing missing."""

from __future__ import annotations

import httpx
import pytest
from feedrank_core.contracts.metrics import METRICS
from processes import Service
from prometheus_client.parser import text_string_to_metric_families


def registered(service: str) -> set[str]:
    return {m.full_name.removesuffix("_total") for m in METRICS if m.service == service}


def exposed(service: Service) -> set[str]:
    text = httpx.get(f"{service.url}/metrics").raise_for_status().text
    return {family.name for family in text_string_to_metric_families(text)}


def test_the_intake_exposes_the_registry(intake: Service) -> None:
    assert exposed(intake) == registered("ingestion")


@pytest.mark.usefixtures("bus_server", "cache_server")
def test_the_gateways_workers_together_expose_the_registry(gateway: Service) -> None:
    for params in ({}, {"limit": "0"}):
        httpx.get(f"{gateway.url}/v1/users/u/feed", params=params)
    assert exposed(gateway) == registered("gateway")
