"""Each protocol on planted data whose best ranking is known, and what bad input is told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import quality_world
from feedrank_cli.bench import quality
from feedrank_cli.bench.report import BenchCannotRun, Report
from feedrank_cli.quality import lightgcn, movielens, published, sequences
from feedrank_cli.quality.changing import changed
from feedrank_cli.quality.reading import DataError
from feedrank_cli.quality.task import Task, popularity
from feedrank_core.runtime.home import Home
from feedrank_trainer.configuration import TrainingConfig
from quality_world import CIRCLE, SHORT, short_run, write

HOME = Home(Path("nowhere"))


@pytest.fixture
def circles_of_taste(tmp_path) -> Path:
    return quality_world.circles_of_taste(tmp_path)


@pytest.fixture
def circles_of_order(tmp_path) -> Path:
    return quality_world.circles_of_order(tmp_path)


@pytest.fixture
def films_of_one_genre(tmp_path) -> Path:
    return quality_world.films_of_one_genre(tmp_path)


def reached(task: Task, metric: str) -> tuple[float, float]:
    """What the two-tower reaches after a short run, and what popularity does."""
    outcome = short_run(task)
    floor = popularity(task.final.holdout, task.metrics)
    return float(outcome.measured.values[metric].mean()), float(floor.values[metric].mean())


def test_the_rest_of_a_readers_circle_is_found_among_all_items(circles_of_taste):
    ours, floor = reached(lightgcn.prepare(circles_of_taste)[""], "ndcg_at_20")
    assert ours > 0.9
    assert floor < 0.5


def test_the_next_item_of_a_round_is_found_among_all_items(circles_of_order):
    ours, floor = reached(sequences.prepare(circles_of_order)[""], "ndcg_at_10")
    assert ours > 0.8
    assert floor < 0.3


@pytest.mark.parametrize("name", [movielens.BY_READER, movielens.BY_TIME])
def test_films_of_the_loved_genre_are_found_by_either_split(films_of_one_genre, name):
    task = movielens.prepare(films_of_one_genre)[name]
    ours, floor = reached(task, "recall_at_20")
    assert ours > 0.7
    assert ours > floor + 0.2


def test_no_train_item_is_asked_and_the_validation_is_not_learned_from(circles_of_taste):
    task = lightgcn.prepare(circles_of_taste)[""]
    assert task.final.holdout.relevant.multiply(task.final.holdout.seen).nnz == 0
    assert task.final.holdout.relevant.sum() == 160 * 4
    piece = next(iter(task.tuning.source.pieces(np.random.default_rng(0))))
    asked = task.tuning.holdout
    for row, user in enumerate(asked.readers["user"]):
        chosen = piece["user"] == user
        learned = np.concatenate([piece["history"][chosen], piece["positive"][chosen]], axis=None)
        assert not np.isin(asked.relevant[row].indices, learned).any()


def test_the_test_of_a_sequence_knows_all_before_it_and_the_validation_one_less(circles_of_order):
    task = sequences.prepare(circles_of_order)[""]
    for fold, known in ((task.tuning, 6), (task.final, 7)):
        history = fold.holdout.readers["history"]
        assert ((history >= 0).sum(axis=1) == known).all()
        assert (np.diff(fold.holdout.relevant.indptr) == 1).all()
    last, asked = task.final.holdout.readers["history"][:, -1], task.final.holdout.relevant.indices
    assert ((last + 1 - asked) % CIRCLE == 0).all()


def test_a_last_item_that_was_seen_before_is_asked_all_the_same(tmp_path):
    task = sequences.prepare(write(tmp_path / "s.txt", ["1 5 6 7 5", "2 6 7 5 6", "3 7 5"]))[""]
    assert task.final.holdout.relevant.sum() == 2


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        (["0 1 x"], ["0 2"], "train.txt:1: 'x' is no whole number"),
        (["0 1 2", "1 -3 4"], ["0 2"], "train.txt:2: '-3' is no whole number"),
        (["0 1 2", f"1 {1 << 63}"], ["0 2"], "train.txt:2:"),
        (["0 1 2", "1 " + "9" * 5000], ["0 2"], "train.txt:2:"),
        (["0 1 2", "", "0 1 2"], ["0 2"], "train.txt:3: user 0 has line 1 already"),
        (["0", "1"], ["0 2"], "train.txt: no user has an item"),
        (["0 1", "1 2"], ["0 2"], "train.txt: no user has two items"),
        (["0 1 2"], ["0"], "test.txt: no user has an item"),
        (["0 1 2"], ["0 2 1"], "test.txt: asks nothing that train.txt does not list"),
    ],
)
def test_bad_lines_are_named_by_file_and_line(tmp_path, train, test, said):
    write(tmp_path / "train.txt", train)
    write(tmp_path / "test.txt", test)
    with pytest.raises(DataError, match=said):
        lightgcn.prepare(tmp_path)


def test_repeated_items_empty_test_lines_and_cold_readers_follow_the_documented_rules(tmp_path):
    write(tmp_path / "train.txt", ["0 1 1 2", "1 1 2 3", "2"])
    write(tmp_path / "test.txt", ["0 3 3 2", "1", "2 1", "3 9"])
    holdout = lightgcn.prepare(tmp_path)[""].final.holdout
    assert holdout.readers["user"].tolist() == [0, 2, 3]
    assert holdout.relevant.toarray().sum(axis=1).tolist() == [1, 1, 1]
    assert (holdout.readers["history"] >= 0).sum(axis=1).tolist() == [2, 0, 0]


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ('{"1": [NaN]}', "NaN is no attribute"),
        ('{"1": [1],\n"2" [2]}', "s_item2attributes.json:2:"),
        ("[1]", "must be an object"),
        ('{"1": 5}', "attributes of item '1'"),
        ('{"1": [0.5]}', "attributes of item '1'"),
    ],
)
def test_bad_attributes_are_refused(tmp_path, attributes, said):
    (tmp_path / "s_item2attributes.json").write_text(attributes)
    with pytest.raises(DataError, match=said):
        sequences.prepare(write(tmp_path / "s.txt", ["1 1 2 3"]))


def test_attributes_of_unknown_items_are_left_out_and_of_known_ones_are_read(tmp_path):
    (tmp_path / "s_item2attributes.json").write_text(json.dumps({"1": [4, "red"], "99": [5]}))
    items = sequences.prepare(write(tmp_path / "s.txt", ["1 1 2 3"]))[""].final.items
    assert (items["tags"] != 0).sum(axis=1).tolist() == [2, 0, 0]


@pytest.mark.parametrize(
    ("rating", "said"),
    [
        ("0\t99\t5\t1", "'99' is not in ml.item"),
        ("0\t1\tnan\t1", "'nan' is no number"),
        ("0", ":2:"),
    ],
)
def test_bad_ratings_are_named_by_file_and_line(films_of_one_genre, rating, said):
    write(films_of_one_genre / "ml.inter", ["header", rating])
    with pytest.raises(DataError, match=said):
        movielens.prepare(films_of_one_genre)


def test_ratings_that_leave_nobody_to_measure_are_refused(films_of_one_genre):
    disliked = [f"{user}\t{film}\t1\t{film}" for user in range(20) for film in range(20)]
    write(films_of_one_genre / "ml.inter", ["header", *disliked])
    with pytest.raises(DataError, match="nobody who is known liked anything"):
        movielens.prepare(films_of_one_genre)


def test_the_bench_tells_mean_and_spread_over_seeds_and_popularity(circles_of_taste, monkeypatch):
    monkeypatch.setattr(lightgcn, "CONFIG", replace(SHORT, epochs=1))
    report = quality.run(
        HOME, quick=False, seed=3, data_format="lightgcn", path=circles_of_taste, seeds=2
    )
    said = {"users", "items", "recall_at_20", "ndcg_at_20_spread", "validated", "training_cpu_s"}
    assert said <= report.figures.keys()
    assert "popularity_ndcg_at_20" in report.floors
    assert report.bounds == [("ndcg_at_20_over_popularity_low", ">", 0.0)]


def test_a_configuration_is_changed_by_name_and_value():
    config = changed(TrainingConfig(), ["temperature=.05", "in_batch=false", "history=bag"])
    assert config == TrainingConfig(temperature=0.05, in_batch=False, history="bag")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("warmth=1", "NAME of epochs, batch_size"),
        ("epochs", "NAME=VALUE"),
        ("epochs=some", "epochs is a whole number"),
        ("in_batch=2", "in_batch is true or false"),
        ("history=diary", "history must be one of attention, bag, sequence"),
        ("loss=none", "loss must be one of softmax, binary"),
        ("averaging=1", "averaging must be at least 0 and below 1"),
        ("id_dropout=2", "id_dropout must be at least 0 and below 1"),
        ("batch_size=0", "batch_size must be 1 at least"),
        ("against=-1", "against must be a number of 0 at least"),
        ("learning_rate=nan", "learning_rate must be a number of 0 at least, not nan"),
        ("num_uniform=0", "num_uniform must be 1 at least where in_batch=False"),
    ],
)
def test_a_change_that_cannot_be_made_says_what_can(circles_of_taste, change, said):
    with pytest.raises(BenchCannotRun, match=said):
        quality.run(
            HOME,
            quick=True,
            seed=0,
            data_format="lightgcn",
            path=circles_of_taste,
            changes=[change],
        )


def test_an_ablation_is_told_from_the_preset(circles_of_taste):
    report = quality.run(
        HOME,
        quick=True,
        seed=0,
        data_format="lightgcn",
        path=circles_of_taste,
        changes=["pool=2"],
    )
    assert report.name == "quality lightgcn pool=2"


def test_an_unknown_format_and_bad_data_cannot_be_run(tmp_path):
    for data_format in ("unheard-of", *quality.FORMATS):
        with pytest.raises(BenchCannotRun):
            quality.run(HOME, quick=True, seed=0, data_format=data_format, path=tmp_path / "none")


def test_known_data_stands_beside_what_others_published(circles_of_order, monkeypatch):
    task = sequences.prepare(circles_of_order)[""]
    monkeypatch.setattr(quality, "known_as", lambda task: published.BEAUTY)
    report = Report("quality", 0)
    quality.tell(report, task, [short_run(task)])
    assert {row["by"] for row in report.as_dict()["published"]} >= {"SASRec", "TIGER"}
    assert ("ndcg_at_10", ">=", 0.0505) in report.bounds
