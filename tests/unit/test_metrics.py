"""Metrics: only what the registry names, all of it from the start."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from feedrank_core.contracts.metrics import METRICS, Kind
from feedrank_core.runtime.metrics import MULTIPROCESS_VARIABLE, Metrics
from prometheus_client.parser import text_string_to_metric_families

SERVICES = sorted({spec.service for spec in METRICS})


def families(metrics: Metrics) -> dict[str, str]:
    text = metrics.exposition().decode()
    return {f.name: f.type for f in text_string_to_metric_families(text)}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_exposes_its_part_of_the_registry_and_nothing_else(service: str) -> None:
    exposed = families(Metrics(service))
    expected = {
        spec.full_name.removesuffix("_total"): spec.kind.value
        for spec in METRICS
        if spec.service == service
    }
    assert {name: kind for name, kind in exposed.items() if not name.endswith("_created")} == (
        expected
    )


def test_a_folder_that_a_library_names_later_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(MULTIPROCESS_VARIABLE, str(tmp_path))
    assert families(Metrics("gateway"))


def test_names_in_the_registry_are_unique_and_say_their_unit() -> None:
    names = [spec.full_name for spec in METRICS]
    assert len(set(names)) == len(names)
    for spec in METRICS:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", spec.full_name)
        assert (spec.kind is Kind.COUNTER) == spec.name.endswith("_total"), spec.full_name
        assert spec.help.endswith("."), spec.full_name
        assert (spec.kind is Kind.HISTOGRAM) == bool(spec.buckets), spec.full_name


def test_no_label_is_an_id() -> None:
    for spec in METRICS:
        assert not [label for label in spec.labels if label == "id" or label.endswith("_id")]


def test_an_unknown_name_and_a_wrong_kind_are_errors() -> None:
    metrics = Metrics("gateway")
    with pytest.raises(KeyError):
        metrics.counter("made_up_total")
    with pytest.raises(AssertionError):
        metrics.gauge("requests_total")


def test_what_is_counted_is_scraped() -> None:
    metrics = Metrics("gateway")
    counter = metrics.counter("requests_total")
    spec = next(s for s in METRICS if s.full_name == "feedrank_gateway_requests_total")
    labels = dict.fromkeys(spec.labels, "some")
    counter.labels(**labels).inc(3)
    assert metrics.registry.get_sample_value(spec.full_name, labels) == 3


def test_two_services_in_one_process_do_not_collide() -> None:
    assert families(Metrics("gateway")) == families(Metrics("gateway"))
