"""A misspelt `FEEDRANK_*` variable is told with the name that was meant."""

import pytest
from feedrank_cli.__main__ import app
from feedrank_cli.bench_command import discover
from feedrank_cli.variables import OTHERS, owners, unknown, variables_of
from feedrank_simulator.settings import Settings as Simulator


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("FEEDRANK_GATEWAY_PROT", "FEEDRANK_GATEWAY_PORT"),
        ("FEEDRANK_HOMES", "FEEDRANK_HOME"),
        ("FEEDRANK_TRAINER_EPOCH", "FEEDRANK_TRAINER_EPOCHS"),
        ("FEEDRANK_KAFKA_SASL_PASWORD", "FEEDRANK_KAFKA_SASL_PASSWORD"),
        ("FEEDRANK_XYZ_0123456789_QQQ", None),
    ],
)
def test_a_misspelt_variable_is_told_with_the_nearest_one(monkeypatch, capsys, given, meant):
    monkeypatch.setenv(given, "1")
    with pytest.raises(SystemExit):
        app(["--help"])
    said = capsys.readouterr().err
    assert f"Nothing reads {given}" in said
    assert (meant or "docs/settings.md") in said


def test_what_somebody_reads_is_not_told():
    read = set().union(*map(variables_of, owners().values()), variables_of(Simulator), OTHERS)
    assert unknown([*read, "feedrank_home", "PATH", "FEEDRANKED"]) == {}


def test_the_variable_of_a_measurements_data_is_known():
    assert discover()["movielens"].DATA_VARIABLE in OTHERS
