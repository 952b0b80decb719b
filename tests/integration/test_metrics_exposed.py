"""What real processes expose at `/metrics` is the registry: nothing beside it, nothing missing."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import duckdb
import httpx
import orjson
import pytest
from batch_ranker_world import NEW, NUM_USERS, Place
from feedrank_core.contracts.metrics import METRICS
from feedrank_core.runtime.home import Home
from feedrank_trainer.pairs import SUMMARY, write_pairs
from processes import HOST, START_S, Server, Service, free_port, until
from prometheus_client.parser import text_string_to_metric_families
from trainer_world import AS_OF, write_features


def registered(service: str) -> set[str]:
    return {m.full_name.removesuffix("_total") for m in METRICS if m.service == service}


def exposed(service: Service) -> set[str]:
    text = httpx.get(f"{service.url}/metrics").raise_for_status().text
    return {family.name for family in text_string_to_metric_families(text)}


def probes_alone(folder: Path, module: str, *arguments: str, **settings: str) -> Service:
    """A command that answers probes while it works; `<service>_port` is its own."""
    port = free_port()
    own = {f"{module.removeprefix('feedrank_')}_port": str(port), "home": str(folder)}
    return Service(folder, module, *arguments, port=port, **own, **settings)


def ended(service: Service) -> int:
    """Its exit code, once it has ended by itself and let go of its port."""
    assert service.process is not None
    code = service.process.wait(START_S)
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # answers still linger
        free.bind((HOST, int(service.url.rsplit(":", 1)[1])))
    return code


def test_the_trainer_exposes_the_registry_and_how_well_it_learns(tmp_path: Path) -> None:
    home, run = Home(tmp_path), tmp_path / "run"
    write_features(home.features)
    run.mkdir()
    with duckdb.connect() as connection:
        write_pairs(home.features, run, as_of=AS_OF, connection=connection)
    service = probes_alone(
        tmp_path, "feedrank_trainer", *("train", "--as-of", AS_OF.isoformat()),
        *("--run", str(run), "--epochs", "1"),
    )  # fmt: skip
    with service.held_at_its_first_line():
        service.until_ready()
        until(lambda: sample(service, "trainer_epochs_total") == 1)
        assert exposed(service) == registered("trainer")
        for name in ("pairs", "steps", "loss", "validation_ndcg"):
            assert sample(service, f"trainer_{name}") > 0
    assert ended(service) == 0


def test_the_trainer_exposes_how_many_pairs_it_has_written(tmp_path: Path) -> None:
    home, run = Home(tmp_path), tmp_path / "run"
    write_features(home.features)
    run.mkdir()
    summary = run / SUMMARY
    os.mkfifo(summary)  # holds the command at its last file until that is read
    service = probes_alone(
        tmp_path, "feedrank_trainer", "pairs", "--as-of", AS_OF.isoformat(), "--run", str(run)
    )
    with service.running():
        service.until_ready()
        until(lambda: sample(service, "trainer_pairs"))
        assert exposed(service) == registered("trainer")
        written = sample(service, "trainer_pairs")
        assert orjson.loads(summary.read_bytes())["pairs"] == written
        assert ended(service) == 0


def test_the_batch_ranker_exposes_the_registry_and_how_far_it_is(
    cache_server: Server, tmp_path: Path
) -> None:
    place = Place(tmp_path, cache_server.url)
    service = probes_alone(
        tmp_path, "feedrank_batch_ranker", "rank", "--run", str(place.run),
        cache_url=cache_server.url,
    )  # fmt: skip
    with cache_server.hang():
        service.start()
        until(lambda: service.readiness()[0] and sample(service, "batch_ranker_readers"))
        assert exposed(service) == registered("batch_ranker")
        assert sample(service, "batch_ranker_readers") == NUM_USERS
        assert sample(service, "batch_ranker_readers_ranked") == 0
        assert sample(service, "batch_ranker_recall") == 1.0
    assert ended(service) == 0
    (place.run / "rank.json").unlink()
    # The catalogue is indexed by now: the first line is of the readers, once all are ranked.
    with service.held_at_its_first_line():
        service.until_ready()
        until(lambda: sample(service, "batch_ranker_readers_ranked") == NUM_USERS)
    assert ended(service) == 0


def test_the_batch_ranker_exposes_the_registry_while_it_publishes(
    cache_server: Server, tmp_path: Path
) -> None:
    place = Place(tmp_path, cache_server.url)
    place("rank")
    service = probes_alone(
        tmp_path, "feedrank_batch_ranker", "publish", "--run", str(place.run),
        cache_url=cache_server.url,
    )  # fmt: skip
    with cache_server.hang():
        service.start()
        service.until_ready()
        assert exposed(service) == registered("batch_ranker")
    assert ended(service) == 0
    assert place.store.current_id() == NEW


def sample(service: Service, name: str) -> float:
    text = httpx.get(f"{service.url}/metrics").raise_for_status().text
    (value,) = (
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == f"feedrank_{name}"
    )
    return value


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
