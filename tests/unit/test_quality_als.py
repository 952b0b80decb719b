"""The peer beside the towers, on planted data whose best ranking is known."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import quality_world
from feedrank_cli.bench import quality
from feedrank_cli.bench.report import BenchCannotRun, Report
from feedrank_cli.quality import lightgcn, movielens
from feedrank_cli.quality.als import Settings, als, tuned_als
from feedrank_core.runtime.home import Home
from feedrank_trainer.comparison import measure
from quality_world import short_run


def test_the_rest_of_a_readers_circle_is_found_by_als_too(tmp_path):
    task = lightgcn.prepare(quality_world.circles_of_taste(tmp_path))[""]
    found = measure(task.final.holdout, tuned_als(task, seed=1), metrics=("recall_at_20",))
    assert found.values["recall_at_20"].mean() > 0.9


def test_it_learns_from_nothing_that_is_asked(tmp_path):
    task = movielens.prepare(quality_world.films_of_one_genre(tmp_path))[movielens.BY_READER]
    holdout = task.final.holdout
    blind = replace(holdout, relevant=0 * holdout.relevant)
    rows, settings = np.arange(5), Settings(8, 1.0, 5.0)
    ours, theirs = (als(one, settings, seed=1)(rows) for one in (holdout, blind))
    np.testing.assert_array_equal(ours, theirs)


def test_a_peer_that_is_not_installed_is_said_before_any_training(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "implicit", None)
    monkeypatch.setattr(quality, "run_seeds", lambda *_: pytest.fail("it trained"))
    path = quality_world.films_of_one_genre(tmp_path)
    with pytest.raises(BenchCannotRun, match="implicit is not installed"):
        quality.run(Home(tmp_path), quick=True, seed=0, data_format="movielens", path=path)


def test_the_usual_split_is_held_to_the_peer(tmp_path):
    tasks = movielens.prepare(quality_world.films_of_one_genre(tmp_path))
    report = Report("quality", 0)
    for name, task in tasks.items():
        quality.tell(report, task, [short_run(task)], prefix=f"{name}_")
    assert {"by_reader_als_ndcg_at_10", "by_time_als_recall_at_20"} <= report.floors.keys()
    held = [figure for figure, *_ in report.bounds if "over_als" in figure]
    assert held == ["by_reader_ndcg_at_10_over_als", "by_reader_recall_at_20_over_als"]
