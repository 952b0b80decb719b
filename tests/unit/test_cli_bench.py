"""`feedrank bench`: which measurements run, with which options, and what the exit code says."""

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
from feedrank_cli import bench_command
from feedrank_cli.__main__ import app
from feedrank_cli.bench.report import CANNOT_RUN, MET, MISSED, BenchCannotRun, Report


class Bench:
    """A measurement that reaches 1, against a bound; notes what it was run with."""

    def __init__(self, name: str, bound: float = 1.0, reason: str = "") -> None:
        self.given: list[dict[str, object]] = []

        def measure(**given: object) -> Report:
            self.given.append(given)
            if reason:
                raise BenchCannotRun(reason)
            report = Report(name, 1)
            report.figure("rate", 1)
            report.bound("rate", ">=", bound)
            return report

        def run(place, *, quick: bool, seed: int) -> Report:
            return measure(quick=quick, seed=seed)

        def run_of_events(place, *, quick: bool, seed: int, events: int = 9) -> Report:
            return measure(quick=quick, seed=seed, events=events)

        def run_of_data(place, *, quick: bool, seed: int, data_format: str, path: Path) -> Report:
            return measure(quick=quick, seed=seed, data_format=data_format, path=path)

        chosen = {"events": run_of_events, "data": run_of_data}.get(name, run)
        self.module = SimpleNamespace(NAME=name, HELP=f"Measures {name}.", run=chosen)


@pytest.fixture(autouse=True)
def _signals_as_before():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def benches(monkeypatch):
    found = {
        "met": Bench("met"),
        "broken": Bench("broken", reason="no Java here"),
        "missed": Bench("missed", bound=2.0),
        "events": Bench("events"),
    }
    monkeypatch.setattr(
        bench_command, "discover", lambda: {name: of.module for name, of in found.items()}
    )
    return found


def exit_code(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        app(["bench", *arguments])
    return int(left.value.code or 0)


@pytest.mark.parametrize(
    ("name", "code"), [("met", MET), ("missed", MISSED), ("broken", CANNOT_RUN)]
)
def test_the_exit_code_says_whether_bounds_are_met_or_it_could_not_run(benches, capsys, name, code):
    assert exit_code(name) == code
    assert ("no Java here" in capsys.readouterr().out) == (code == CANNOT_RUN)


def test_all_runs_every_one_whatever_the_others_say_and_exits_with_the_worst(
    benches, capsys, tmp_path
):
    written = tmp_path / "all.json"
    assert exit_code("all", "--json", str(written)) == CANNOT_RUN
    assert [len(of.given) for of in benches.values()] == [1, 1, 1, 1]
    assert [report["name"] for report in json.loads(written.read_text())] == [
        "met",
        "missed",
        "events",
    ]


def test_one_measurement_writes_its_own_report(benches, tmp_path):
    assert exit_code("missed", "--json", str(tmp_path / "one.json")) == MISSED
    report = json.loads((tmp_path / "one.json").read_text())
    assert report["bounds"] == [{"figure": "rate", "op": ">=", "bound": 2, "met": False}]


def test_options_reach_the_measurements_that_know_them(benches):
    exit_code("events", "--events", "5", "--quick", "--seed", "3")
    exit_code("all", "--events", "6")
    assert benches["events"].given == [
        {"quick": True, "seed": 3, "events": 5},
        {"quick": False, "seed": 7, "events": 6},
    ]
    assert benches["met"].given == [{"quick": False, "seed": 7}]


def test_a_measurement_of_given_data_takes_format_and_path_and_is_no_part_of_all(monkeypatch):
    found = {"met": Bench("met"), "data": Bench("data")}
    monkeypatch.setattr(
        bench_command, "discover", lambda: {name: of.module for name, of in found.items()}
    )
    assert exit_code("data") == exit_code("data", "rows") == CANNOT_RUN
    assert exit_code("met", "rows") == CANNOT_RUN
    assert exit_code("data", "rows", "here") == exit_code("all") == MET
    assert found["data"].given == [
        {"quick": False, "seed": 7, "data_format": "rows", "path": Path("here")}
    ]


@pytest.mark.parametrize("arguments", [("met", "--events", "5"), ("unheard-of",)])
def test_what_cannot_be_run_is_named_and_nothing_is_measured(benches, capsys, arguments):
    assert exit_code(*arguments) == CANNOT_RUN
    said = capsys.readouterr().err
    assert ("--events" if "met" in arguments else "unheard-of") in said
    assert not any(of.given for of in benches.values())


@pytest.mark.parametrize("arguments", [(), ("--list",)])
def test_the_list_names_each_with_what_it_measures(benches, capsys, arguments):
    assert exit_code(*arguments) == MET
    said = capsys.readouterr().out
    assert all(f"Measures {name}." in said for name in benches)


def test_every_measurement_of_the_package_is_found():
    found = bench_command.discover()
    assert {"intake", "cached_feed", "batch", "demo", "movielens"} <= found.keys()
    assert all(module.HELP and callable(module.run) for module in found.values())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_measurement_that_is_ended_from_outside_cleans_up(monkeypatch, number):
    cleaned = []

    def run(place, *, quick: bool, seed: int) -> Report:
        try:
            os.kill(os.getpid(), number)
            raise AssertionError("the signal was let pass")
        finally:
            cleaned.append(number)

    ended = SimpleNamespace(NAME="ended", HELP="", run=run)
    monkeypatch.setattr(bench_command, "discover", lambda: {"ended": ended})
    assert exit_code("ended") == 130
    assert cleaned == [number]
