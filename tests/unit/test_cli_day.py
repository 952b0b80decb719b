import json
import sys
from datetime import date

import pytest
from feedrank_cli import day as day_module
from feedrank_cli.day import Day, Step, only_one, run_day
from feedrank_cli.errors import CommandError
from feedrank_cli.settings import Settings, load

STEPS = tuple(Step(name, "none", name, ()) for name in ("collect", "train", "publish"))


class Scripted(Day):
    """A day whose steps are lines of Python."""

    script = {}

    def command(self, step):
        return [sys.executable, "-c", self.script.get(step.name, "")]


@pytest.fixture
def day(tmp_path, monkeypatch):
    monkeypatch.setattr(day_module, "STEPS", STEPS)
    settings = Settings(home=tmp_path)
    return Scripted(settings, settings.place.runs / "one")


def run(day):
    ran = []
    run_day(day, begin=lambda step: None, end=lambda step, seconds: ran.append(step.name))
    return ran


def test_the_first_failing_step_stops_the_day_with_its_last_lines(day, monkeypatch):
    monkeypatch.setattr(Scripted, "script", {"train": "print('loss is nan'); raise SystemExit(3)"})
    with pytest.raises(CommandError, match="Step train failed") as caught:
        run(day)
    assert "loss is nan" in str(caught.value)
    assert "--run one" in caught.value.remedy
    assert list(day.done) == ["collect"]


@pytest.mark.parametrize(
    ("failing", "said"), [("publish", "nothing was published"), ("compact", "the new feeds serve")]
)
def test_a_failing_step_says_whether_anything_was_published(day, monkeypatch, failing, said):
    compact = Step("compact", "none", "compact", ())
    monkeypatch.setattr(day_module, "STEPS", (*STEPS, compact))
    monkeypatch.setattr(Scripted, "script", {failing: "raise SystemExit(1)"})
    with pytest.raises(CommandError, match=f"Step {failing} failed .exit code 1.; {said}"):
        run(day)


def test_compaction_holds_up_no_feed():
    assert [step.name for step in day_module.STEPS][-2:] == ["publish", "compact"]


def test_a_resumed_day_runs_only_what_is_left(day, monkeypatch, tmp_path):
    count = f"open({str(tmp_path / 'count')!r}, 'a').write('x')"
    monkeypatch.setattr(Scripted, "script", {"collect": count, "train": "raise SystemExit(1)"})
    with pytest.raises(CommandError):
        run(day)
    monkeypatch.setattr(Scripted, "script", {"collect": count})
    assert run(day) == ["collect", "train", "publish"]
    assert (tmp_path / "count").read_text() == "x"


def test_two_days_of_one_home_do_not_run_at_once(day):
    with (
        only_one(day.settings),
        pytest.raises(CommandError, match="already under way"),
        only_one(day.settings),
    ):
        pass


def test_a_day_removes_runs_older_than_the_bundles_that_are_kept(day):
    place, manifest = day.settings.place, "20260104T000000-0123abcd/manifest.json"
    runs = {n: place.runs / f"2026010{n}T000000000000Z" for n in range(1, 8)}
    for number, bundle in ((1, 1), (2, None), (3, 3), (4, 4), (5, None), (6, 6), (7, None)):
        runs[number].mkdir(parents=True)
        if bundle:
            named = {"bundle_id": f"2026010{bundle}T000000-0123abcd"}
            (runs[number] / "bundle.json").write_text(json.dumps(named))
    run(day)
    assert all(folder.is_dir() for folder in runs.values())
    (place.bundles / manifest).parent.mkdir(parents=True)
    (place.bundles / manifest).touch()
    day.folder.joinpath("done.json").unlink()
    run(day)
    assert [number for number, folder in runs.items() if folder.is_dir()] == [4, 5, 6, 7]
    assert day.folder.is_dir()


def test_a_day_sees_no_further_than_its_date(tmp_path):
    (tmp_path / "offsets.json").write_text(json.dumps({"as_of": "2026-11-20T12:00:00Z"}))
    settings = Settings(home=tmp_path)
    assert Day(settings, tmp_path, date(2026, 11, 18)).as_of().isoformat().startswith("2026-11-19")
    assert Day(settings, tmp_path).as_of().isoformat() == "2026-11-20T12:00:00+00:00"


def test_a_wrong_port_is_named_by_its_variable(monkeypatch):
    monkeypatch.setenv("FEEDRANK_GATEWAY_PORT", "99999")
    with pytest.raises(CommandError, match="FEEDRANK_GATEWAY_PORT"):
        load()
