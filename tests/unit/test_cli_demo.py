"""What a demo leaves behind: services and home by how the show ended."""

from __future__ import annotations

import tempfile

import pytest
from feedrank_cli import demo as demo_module
from feedrank_cli.__main__ import app
from feedrank_cli.errors import CommandError
from feedrank_cli.supervision import Supervisor


@pytest.fixture
def ended(tmp_path, monkeypatch):
    """Run `demo` with a show that ends so; the homes it leaves, and how often it stopped."""
    stopped = []
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(demo_module, "interrupt_on_signals", lambda: None)
    monkeypatch.setattr(Supervisor, "stop", lambda self: stopped.append(self.run) or [])

    def run(outcome, *options):
        def show(settings, *_):
            settings.place.logs.mkdir(parents=True)
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        monkeypatch.setattr(demo_module, "_show", show)
        with pytest.raises(SystemExit):
            app(["demo", *options])
        return sorted(tmp_path.glob("feedrank-demo-*")), len(stopped)

    return run


@pytest.mark.parametrize("options", [(), ("--once",)])
def test_an_interrupted_demo_leaves_neither_services_nor_home(ended, options):
    assert ended(KeyboardInterrupt(), *options) == ([], 1)


@pytest.mark.parametrize("outcome", [CommandError("it failed"), False])
def test_a_failed_show_of_one_time_keeps_the_home_and_names_it(ended, capsys, outcome):
    (home,), num_stops = ended(outcome, "--once")
    assert num_stops == 1
    assert f"The home stays, with all logs: {home}" in capsys.readouterr().out


def test_a_show_that_cannot_be_given_stops_the_services_it_would_have_left(ended, capsys):
    (home,), num_stops = ended(CommandError("it failed"))
    assert num_stops == 1
    assert str(home) in capsys.readouterr().out


def test_a_show_of_one_time_that_worked_leaves_nothing(ended):
    assert ended(True, "--once") == ([], 1)


@pytest.mark.parametrize("outcome", [True, False])
def test_a_show_that_came_to_its_end_leaves_the_services_up(ended, capsys, outcome):
    (home,), num_stops = ended(outcome)
    assert num_stops == 0
    assert f"FEEDRANK_HOME={home} feedrank down" in capsys.readouterr().out
