"""What real processes expose at `/metrics` is the registry: nothing beside it, nothing missing."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from feedrank_core.contracts.metrics import METRICS
from processes import Service, free_port
from prometheus_client.parser import text_string_to_metric_families


def registered(service: str) -> set[str]:
    return {m.full_name.removesuffix("_total") for m in METRICS if m.service == service}


def exposed(service: Service) -> set[str]:
    text = httpx.get(f"{service.url}/metrics").raise_for_status().text
    return {family.name for family in text_string_to_metric_families(text)}


def test_the_intake_exposes_the_registry(intake: Service) -> None:
    assert exposed(intake) == registered("ingestion")


def test_the_lake_sink_exposes_the_registry(bus_url: str, tmp_path: Path) -> None:
    port = free_port()
    service = Service(
        tmp_path,
        "feedrank_ingestion",
        "lake-sink",
        port=port,
        home=str(tmp_path),
        bus_url=bus_url,
        lake_sink_port=str(port),
    )
    with service.running():
        service.until_ready()
        assert exposed(service) == registered("ingestion")


@pytest.mark.usefixtures("bus_server", "cache_server")
def test_the_gateways_workers_together_expose_the_registry(gateway: Service) -> None:
    for params in ({}, {"limit": "0"}):
        httpx.get(f"{gateway.url}/v1/users/u/feed", params=params)
    assert exposed(gateway) == registered("gateway")


def test_the_feature_store_exposes_the_registry_beside_feast(
    bus_url: str, cache_url: str, tmp_path: Path
) -> None:
    port = free_port()
    service = Service(
        tmp_path,
        "feedrank_feature_store",
        "serve",
        port=port,
        home=str(tmp_path),
        bus_url=bus_url,
        cache_url=cache_url,
        feature_store_port=str(port),
    )
    with service.running():
        service.until_ready()
        assert exposed(service) == registered("feature_store")
