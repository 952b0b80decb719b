import json
import os
import re
import time

import pytest
from counterfactual import median_ranks
from feedrank_cli.feed import fetch
from feedrank_cli.readiness import READY
from feedrank_cli.show import (
    MAX_COMMON,
    MIN_RISE,
    common_share,
    like,
    look,
    rare_items,
    rise,
    two_readers,
)
from feedrank_core.runtime.redis_clients import sync_client
from machine import Machine
from processes import until

WORLD = ("--users", "600", "--items", "1500", "--days", "10", "--seed", "3")
MAX_RANK_SHARE = 0.9
"""Liked, a category's items stand at most here among all, compared with the same bundle's ranking
of a reader who had not liked them."""


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    machine = Machine(tmp_path_factory.mktemp("ring"))
    machine.feedrank("up")
    yield machine
    machine.supervisor.stop()


@pytest.fixture(scope="module")
def first_day(machine, tmp_path_factory):
    world = tmp_path_factory.mktemp("world")
    machine.feedrank("simulate", "bulk", "--out", str(world), *WORLD)
    machine.feedrank("import", "parquet", str(world))
    again = machine.feedrank("import", "parquet", str(world))
    assert "were there already" in again
    machine.feedrank("daily", "--epochs", "3")
    one, other = two_readers(machine.settings)
    return look(machine.settings, one), look(machine.settings, other)


def test_before_the_first_day_status_says_what_the_gateway_lacks(machine):
    states = json.loads(machine.feedrank("status", "--json", code=1))
    lacking = {s["service"]: s["state"] for s in states if s["state"] != READY}
    assert lacking == {"gateway": "no bundle serves yet; run `feedrank daily`"}


def test_two_readers_get_different_feeds(first_day):
    assert common_share(*first_day) <= MAX_COMMON


def test_likes_change_the_next_days_feed(machine, first_day):
    before, neighbour = first_day
    category, items = rare_items(machine.settings, before)
    like(machine.settings, before.user, items)
    machine.feedrank("daily", "--epochs", "3")
    after = look(machine.settings, before.user, not_bundle=before.bundle)
    assert [*after.items] != [*before.items]
    assert not {*items} & {*after.items}
    assert after.bundle is not None
    place = machine.settings.place
    liked, not_liked = median_ranks(place, after.bundle, before.user, category, len(items))
    assert liked < MAX_RANK_SHARE * not_liked
    unmoved = look(machine.settings, neighbour.user, not_bundle=neighbour.bundle)
    by_training = rise(category, neighbour, unmoved)
    assert rise(category, before, after) >= by_training + MIN_RISE


def test_the_feed_command_prints_what_the_gateway_answers(machine, first_day):
    user = first_day[0].user
    page = json.loads(machine.feedrank("feed", user, "--json", "--limit", "5"))
    assert page["user_id"] == user
    assert len(page["items"]) == 5
    assert user in machine.feedrank("feed", user)


def test_evaluate_prints_the_bundle_that_serves_beside_both_baselines(machine, first_day):
    said = machine.feedrank("evaluate")
    assert look(machine.settings, first_day[0].user).bundle in said
    for contender in ("two-tower", "popularity", "item-kNN"):
        assert contender in said
    for baseline in ("popularity", "item-kNN"):
        assert re.search(rf"NDCG@10 less that of {baseline}: [+-]\d\.\d{{4}}", said)
    unknown = machine.feedrank("evaluate", "--bundle", "20000101T000000-00000000", code=1)
    assert "20000101T000000-00000000" in unknown


def test_logs_print_the_last_lines_of_the_named_service_or_name_the_known_ones(machine):
    lines = machine.feedrank("logs", "gateway", "--lines", "3").splitlines()
    assert len(lines) == 3
    assert all(line.startswith("gateway  ") for line in lines)
    assert {"gateway", "ingestion"} <= {
        line.split()[0] for line in machine.feedrank("logs").splitlines() if line.strip()
    }
    said = machine.feedrank("logs", "unheard-of", code=1)
    assert "unheard-of" in said
    assert "gateway" in said


def test_a_failing_step_publishes_nothing_and_the_run_goes_on_where_it_stopped(machine, first_day):
    user = first_day[0].user
    current = look(machine.settings, user).bundle
    tables = machine.settings.place.features
    moved = tables.with_name("moved")
    run = machine.settings.place.runs / "20260101T000000000000Z"
    run.mkdir()
    (run / "done.json").write_text(json.dumps({"collect": 0, "catalogue": 0, "features": 0}))
    pinned = {"as_of": "2026-01-01T00:00:00Z", "offsets": {}}
    (run / "offsets.json").write_text(json.dumps(pinned))
    tables.rename(moved)
    try:
        said = machine.feedrank("daily", "--run", run.name, code=1)
    finally:
        moved.rename(tables)
    assert "Step pairs failed" in said
    assert f"--run {run.name}" in said
    assert look(machine.settings, user).bundle == current


def test_json_lines_go_through_the_intake_and_bad_ones_are_told_by_line(machine, tmp_path):
    when = "2026-11-20T10:00:00Z"
    good = {"event_id": "j1", "event_type": "like", "user_id": "u", "item_id": "i"}
    lines = [
        json.dumps(good | {"occurred_at": when}),
        "{rubbish",
        json.dumps(good | {"event_id": "j2", "event_type": "adore", "occurred_at": when}),
        json.dumps({"user_id": "j-reader", "country": "SE"}),
    ]
    path = tmp_path / "events.jsonl"
    path.write_text("\n".join(lines))
    said = machine.feedrank("import", "jsonl", str(path))
    assert "2 rows refused" in said
    (rejects,) = machine.settings.place.imports.glob("*.rejects.jsonl")
    refused = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert [row["line"] for row in refused] == [2, 3]
    assert "event_type" in refused[1]["reason"]


@pytest.mark.parametrize("service", ["lake_sink", "gateway", "bus"])
def test_a_killed_service_comes_back(machine, first_day, service):
    pid = machine.supervisor.states()[service]["pid"]
    os.kill(pid, 9)
    deadline = time.monotonic() + 60
    while machine.supervisor.states()[service]["pid"] in (0, pid):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    machine.feedrank("up")
    assert "ready" in machine.feedrank("status")
    states = json.loads(machine.feedrank("status", "--json"))
    assert {state["service"] for state in states} >= {"bus", "cache", "lake_sink", "gateway"}
    assert {state["state"] for state in states} == {READY}


def test_stream_and_batch_agree_on_all_that_happened_here(machine, first_day):
    said = machine.feedrank("audit", "skew")
    assert re.search(r"[1-9]\d* values of .*: 0 differ", said), said


def test_after_a_flush_of_the_cache_feeds_are_personal_again(machine, first_day):
    user = first_day[0].user
    with sync_client(machine.settings.cache_url) as cache:
        cache.flushall()

    def is_personal():
        feed = fetch(machine.settings, user, 20)
        return not feed["degraded"] and "cached" in {item["source"] for item in feed["items"]}

    until(is_personal)


def test_a_port_in_use_is_named_with_its_service_and_setting(machine, tmp_path):
    port = str(machine.settings.gateway_port)
    other = Machine(tmp_path)
    other.settings = other.settings.model_copy(update={"gateway_port": int(port)})
    said = other.feedrank("up", code=1)
    assert port in said
    assert "gateway" in said
    assert "FEEDRANK_GATEWAY_PORT" in said
    assert not other.supervisor.members()
