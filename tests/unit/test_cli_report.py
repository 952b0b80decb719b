import json

import pytest
from feedrank_cli.bench.report import MET, MISSED, Report


def test_a_report_with_every_bound_met_exits_0():
    report = Report("x", 1)
    report.figure("p99_ms", 3)
    report.bound("p99_ms", "<=", 3)
    assert report.exit_code == MET


def test_a_missed_bound_exits_1_and_says_which(tmp_path):
    report = Report("x", 1)
    report.figure("rate", 10)
    report.floor("rate", 20)
    report.bound("rate", ">=", 11)
    report.write(tmp_path / "x.json")
    written = json.loads((tmp_path / "x.json").read_text())
    assert report.exit_code == MISSED
    assert written["bounds"] == [{"figure": "rate", "op": ">=", "bound": 11, "met": False}]
    assert written["floor"] == {"rate": 20}
    assert set(written) == {"name", "date", "seed", "machine", "figures", "floor", "bounds"}


def test_a_bound_on_a_figure_that_was_not_measured_is_not_met():
    report = Report("x", 1)
    report.bound("missing", "<=", 1)
    assert report.exit_code == MISSED


def test_not_a_number_meets_no_bound():
    report = Report("x", 1)
    report.figure("ratio", float("nan"))
    report.bound("ratio", "<=", 1)
    assert report.exit_code == MISSED


def test_an_unknown_operator_is_refused():
    with pytest.raises(ValueError, match="op must be one of"):
        Report("x", 1).bound("a", "=<", 1)
