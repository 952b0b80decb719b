"""Settings that `feedrank up` cannot start with are refused by their variable."""

from __future__ import annotations

import subprocess

import pytest
from feedrank_cli.errors import CommandError
from feedrank_cli.settings import STATE_FILE, Settings, is_local, load, port_of
from feedrank_cli.supervision import Supervisor, require_free_ports
from feedrank_core.runtime.settings import InstallationSettings, variable_of

BUS, CACHE = "redis://127.0.0.1:7801/0", "redis://127.0.0.1:7802/0"


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("FEEDRANK_BUS_URL", "redis://127.0.0.1:notaport/0", "notaport"),
        ("FEEDRANK_BUS_URL", "kafka://127.0.0.1:9092,127.0.0.1:x/", "'x'"),
        ("FEEDRANK_CACHE_URL", "redis://127.0.0.1:70000/0", "0-65535"),
        ("FEEDRANK_CACHE_URL", "redis://127.0.0.1:0/0", "port 0"),
        ("FEEDRANK_HOME", "/etc/passwd", "/etc/passwd is no folder"),
        ("FEEDRANK_HOME", "/etc/passwd/below", "/etc/passwd is no folder"),
        ("FEEDRANK_HOME", "/" + "x" * 300, "too long"),
    ],
)
def test_a_setting_that_no_server_or_home_can_have_is_refused_by_name(
    monkeypatch, variable, value, reason
):
    monkeypatch.setenv(variable, value)
    with pytest.raises(CommandError, match=f"^{variable}: .*{reason}"):
        load()


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"bus_url": CACHE}, ("bus_url", "cache_url")),
        ({"bus_url": "redis://h:1/0", "cache_url": "redis://h:1/1"}, ("bus_url", "cache_url")),
        ({"bus_url": "redis://localhost:8080"}, ("bus_url", "gateway_port")),
        ({"trainer_port": 8088}, ("trainer_port", "batch_ranker_port")),
        (
            {"bus_url": "kafka://127.0.0.1:9092", "kafka_controller_port": 9092},
            ("bus_url", "kafka_controller_port"),
        ),
    ],
)
def test_a_port_given_twice_is_refused_by_both_names(tmp_path, given, named):
    settings = Settings(home=tmp_path, **given)
    names = " and ".join(variable_of(Settings, name) for name in named)
    with pytest.raises(CommandError, match=f"{names} name the same port"):
        require_free_ports(settings, [])


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"kafka_controller_port": 8080},
        {"bus_url": "redis://elsewhere:8080"},
        {"bus_url": "unix:///run/bus.sock", "cache_url": "unix:///run/cache.sock"},
    ],
)
def test_the_same_port_may_be_named_where_nobody_else_listens(tmp_path, given):
    require_free_ports(Settings(home=tmp_path, **given), [])


def test_a_list_of_brokers_is_a_cluster_that_up_does_not_start():
    url = "kafka://127.0.0.1:9092,127.0.0.1:9093/shop"
    assert InstallationSettings(bus_url=url).bus_url == url
    assert not is_local(url)
    assert port_of(url) == 9092


def test_a_password_may_hold_what_parts_servers():
    url = "redis://:pass,word@127.0.0.1:7801/0"
    assert InstallationSettings(bus_url=url).bus_url == url
    assert (is_local(url), port_of(url)) == (True, 7801)


def test_a_home_that_cannot_be_made_is_told_with_its_variable(tmp_path):
    (tmp_path / "run").write_text("in the way")
    with pytest.raises(CommandError, match="cannot be made") as caught:
        Supervisor(Settings(home=tmp_path)).start([])
    assert "FEEDRANK_HOME" in caught.value.remedy


def test_the_passwords_that_up_was_told_are_for_its_owner_alone(tmp_path, monkeypatch):
    supervisor = Supervisor(Settings(home=tmp_path, bus_url="redis://:between-us@127.0.0.1:1/0"))
    state = supervisor.run / STATE_FILE
    state.parent.mkdir()
    state.write_text("of an older release, for everybody to read")

    def fail(*_, **__):
        raise InterruptedError

    monkeypatch.setattr(subprocess, "Popen", fail)
    with pytest.raises(InterruptedError):
        supervisor.start([])
    assert "between-us" in state.read_text()
    assert state.stat().st_mode & 0o777 == 0o600
