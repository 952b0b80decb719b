"""Progress: a bar on a terminal, plain lines elsewhere."""

import io
import sys
from types import SimpleNamespace

import pytest
from feedrank_core.runtime import progress as module
from feedrank_core.runtime.progress import LINE_EVERY_S, progress

FORCED = ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "NO_COLOR")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    for name in FORCED:
        monkeypatch.delenv(name, raising=False)
    clock = Clock()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


def test_elsewhere_a_plain_line_comes_every_few_seconds_and_at_the_end(clock, capsys):
    with progress("reading", 100, done=10) as tick:
        clock.now_s = LINE_EVERY_S - 1
        tick(5)
        assert capsys.readouterr().err == ""
        clock.now_s = LINE_EVERY_S
        tick(10, "events")
        assert capsys.readouterr().err == "reading 25/100 3.00/s eta 25s events\n"
        clock.now_s = LINE_EVERY_S + 1
        tick(75)
        assert capsys.readouterr().err == "reading 100/100 15/s eta 0s\n"
    assert capsys.readouterr().err == ""


def test_where_nobody_knows_the_total_the_last_line_is_told_on_leaving(clock, capsys):
    with progress("reading", None) as tick:
        clock.now_s = 2.0
        tick(3)
        assert capsys.readouterr().err == ""
    assert capsys.readouterr().err == "reading 3 1.50/s\n"


def test_on_a_terminal_it_is_a_bar(monkeypatch):
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress("reading", 8, done=2) as tick:
        tick(6, "of last week")
    shown = terminal.getvalue()
    assert "━" in shown
    assert "8/8" in shown
    assert "of last week" in shown
    assert "eta" not in shown
