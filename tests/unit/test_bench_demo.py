"""`bench demo` reads from the show itself when the feeds stood there, and whether it worked."""

import subprocess
import sys
import time

import pytest
from feedrank_cli.bench.demo import _until
from feedrank_cli.bench.report import BenchCannotRun
from feedrank_cli.demo import SAME_ITEMS

SHOWN = f"print('5% {SAME_ITEMS}', flush=True)"


def show(*lines: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", "\n".join(lines)], stdout=subprocess.PIPE, text=True
    )


def test_a_show_that_worked_says_when_the_feeds_stood_there():
    began = time.monotonic()
    with show("print('First day')", SHOWN, "print('It worked')") as child:
        assert 0 < _until(child, SAME_ITEMS, began) <= time.monotonic() - began


@pytest.mark.parametrize("lines", [("print('nothing')",), (SHOWN, "raise SystemExit(1)")])
def test_a_show_without_feeds_or_that_did_not_work_is_told_with_its_last_words(lines):
    with show(*lines) as child, pytest.raises(BenchCannotRun, match=r"nothing|of the places"):
        _until(child, SAME_ITEMS, time.monotonic())
