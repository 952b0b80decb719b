"""`feedrank bench ranker` on tasks of seconds: who contends, and what its bounds are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from feedrank_cli.bench import ranker
from feedrank_cli.bench.report import BenchCannotRun
from feedrank_cli.ranker import contenders, movielens, simulated
from feedrank_cli.ranker.task import RankingTask
from feedrank_core.contracts.slates import HEADS, Head
from feedrank_core.evaluation.ranking_metrics import pooled_auc
from feedrank_core.runtime.home import Home
from feedrank_trainer.ranking.impressions import NOWHERE
from feedrank_trainer.ranking.training import RankerConfig
from scipy.special import expit

SMALL = {"users": 120, "items": 200, "impressions": 8_000}


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> RankingTask:
    folder = tmp_path_factory.mktemp("world")
    return simulated.prepare(folder, simulated.simulate(folder, **SMALL, seed=3))


@pytest.fixture
def films(tmp_path) -> Path:
    """Every reader gives five stars to one genre and one star to the rest."""
    rng = np.random.default_rng(3)
    rows = [f"{n}\tfilm {n}\t1990\tgenre{n % 4}" for n in range(60)]
    (tmp_path / "ml.item").write_text("\n".join(["id\ttitle\tyear\tclass", *rows]) + "\n")
    ratings = ["user\titem\trating\ttimestamp"]
    for user in range(40):
        for place, film in enumerate(rng.permutation(60)[:40]):
            stars = 5 if film % 4 == user % 4 else 1
            ratings.append(f"{user}\t{film}\t{stars}\t{1000 * place + user}")
    (tmp_path / "ml.inter").write_text("\n".join(ratings) + "\n")
    return tmp_path


def test_a_task_of_the_simulator_is_cut_by_time_and_knows_the_truth(task):
    ends = [part.impressions.served_s.max() for part in (task.train, task.tuning)]
    begins = [part.impressions.served_s.min() for part in (task.tuning, task.test)]
    assert ends[0] < begins[0] <= ends[1] < begins[1]
    clicked = task.test.impressions.label(Head.CLICK)
    truth_RH = task.test_truth_RH
    assert truth_RH is not None
    assert [head for h, head in enumerate(HEADS) if np.isnan(truth_RH[:, h]).any()] == [Head.DWELL]
    assert pooled_auc(truth_RH[:, HEADS.index(Head.CLICK)], clicked > 0) > 0.75


def test_the_truth_is_as_blind_to_the_position_as_the_ranker(task):
    shown = task.test.impressions
    truth_R = expit(task.test_truth_RH[:, HEADS.index(Head.CLICK)])
    first = shown.position == 0
    clicked = shown.label(Head.CLICK)
    assert truth_R[first].mean() == pytest.approx(clicked[first].mean(), rel=0.4)
    assert truth_R[shown.position > 5].mean() > 1.5 * clicked[shown.position > 5].mean()


def test_labels_are_those_that_the_world_drew(task):
    shown = task.test.impressions
    for head in (Head.LIKE, Head.SHARE, Head.COMMENT, Head.FOLLOW):
        assert (shown.label(head) <= shown.label(Head.CLICK)).all()
    assert (shown.label(Head.HIDE) + shown.label(Head.CLICK) <= 1).all()
    assert ((shown.label(Head.DWELL) > 0) >= (shown.label(Head.CLICK) > 0)).all()


def test_a_rating_is_an_impression_and_four_stars_a_click(films):
    task = movielens.prepare(films)
    shown = task.train.impressions
    likes_it = shown.item % 4 == shown.user % 4
    assert np.array_equal(shown.label(Head.CLICK), likes_it.astype(np.float32))
    assert (shown.position == NOWHERE).all()
    assert np.isnan(shown.label(Head.SHARE)).all()


@pytest.mark.long
def test_every_contender_is_measured_and_the_ranker_knows_a_readers_genre(films, monkeypatch):
    short = {"history": RankerConfig(epochs=8, batch_size=64, learning_rate=5e-3)}
    monkeypatch.setattr(ranker, "MODELS", short)
    monkeypatch.setattr(ranker, "SHIPS", "history")
    monkeypatch.setattr(contenders, "NUM_TREES", 10)
    monkeypatch.setattr(ranker, "REQUESTS", 3)
    report = ranker.run(Home(films), quick=True, seed=1, data_format="movielens", path=films)
    assert {"auc_popularity", "auc_logistic_regression", "auc_lightgbm"} <= set(report.floors)
    assert report.figures["history_click_auc"] > 0.8
    assert report.floors["auc_popularity"] < 0.65
    assert [figure for figure, _, _ in report.bounds] == ["score_500_p99_ms"]


def test_the_ranker_of_a_simulated_world_is_held_to_the_oracle(task, monkeypatch):
    monkeypatch.setattr(ranker, "_task", lambda *_, **__: task)
    monkeypatch.setattr(ranker, "MODELS", {"history": RankerConfig(epochs=1)})
    monkeypatch.setattr(ranker, "SHIPS", "history")
    monkeypatch.setattr(ranker, "_tell_speed", lambda *_: None)
    monkeypatch.setattr(contenders, "NUM_TREES", 10)
    report = ranker.run(Home(Path("nowhere")), quick=True, seed=1)
    low, best = report.floors["auc_popularity"], report.floors["auc_oracle"]
    assert report.floors["oracle_click_loss"] < report.figures["history_click_loss"]
    lead = report.figures["history_click_auc"] - report.floors["auc_lightgbm"]
    assert report.figures["history_lead_over_lightgbm"] == pytest.approx(lead)
    way = (report.figures["history_click_auc"] - low) / (best - low)
    assert report.figures["history_way_to_oracle"] == pytest.approx(way)
    bounded = {figure for figure, _, _ in report.bounds}
    assert {"history_way_to_oracle", "history_lead_over_lightgbm"} <= bounded
    # So small a world has too few reports for their calibration to be judged.
    assert "history_report_calibration_error" not in bounded


def test_a_format_without_data_is_refused(tmp_path):
    with pytest.raises(BenchCannotRun, match="movielens PATH"):
        ranker.run(Home(tmp_path), quick=True, seed=1, data_format="movielens")
    with pytest.raises(BenchCannotRun, match=r"holds 0 \.item"):
        ranker.run(Home(tmp_path), quick=True, seed=1, data_format="movielens", path=tmp_path)
