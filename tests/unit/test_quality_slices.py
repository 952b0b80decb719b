"""Metrics by slice and beyond accuracy, on planted data whose answer is known."""

from __future__ import annotations

from feedrank_cli.quality import lightgcn, movielens
from quality_world import (
    circles_of_taste,
    films_of_one_genre,
    films_that_come_later,
    told,
    write,
)


def test_items_never_learned_from_are_found_by_content_and_popularity_finds_none(tmp_path):
    report = told(movielens.prepare(films_that_come_later(tmp_path))[movielens.BY_TIME])
    low = "ndcg_at_10_unseen_among_unseen_over_chance_low"
    assert report.figures[low] > 0.2
    assert (low, ">", 0.0) in report.bounds
    assert report.floors["popularity_ndcg_at_10_unseen_among_all"] == 0
    assert report.figures["ndcg_at_10_unseen_among_all"] > 0


def test_readers_are_told_apart_by_what_is_known_of_them(tmp_path):
    task = movielens.prepare(films_that_come_later(tmp_path))[movielens.BY_TIME]
    assert task.final.strangers is not None
    assert task.final.strangers.seen.nnz == 0
    strangers = task.final.strangers.readers["user"]
    assert 0 < len(strangers) <= 8
    assert (strangers >= 80).all()
    figures = told(task).figures
    assert figures["readers_with_0_actions"] == len(strangers)
    assert figures["readers_with_more_actions"] == figures["measured_users"]
    assert "readers_with_1_to_5_actions" not in figures

    write(tmp_path / "train.txt", ["0 1 2", "1 1 2 3 4 5 6 7", "2 3 4 5 6 7", "4 8"])
    write(tmp_path / "test.txt", ["0 3 4", "1 8", "2 1", "3 1 2", "4 9"])
    report = told(lightgcn.prepare(tmp_path)[""])
    readers = {name: n for name, n in report.figures.items() if name.startswith("readers_")}
    assert readers == {
        "readers_with_0_actions": 1,
        "readers_with_1_to_5_actions": 3,
        "readers_with_more_actions": 1,
    }
    assert report.figures.keys() >= {"recall_at_20_with_0_actions"}
    assert report.floors.keys() >= {"popularity_recall_at_20_with_0_actions"}


def test_readers_of_one_genre_see_less_variety_and_fewer_favourites_than_popularity_shows(
    tmp_path,
):
    report = told(movielens.prepare(films_of_one_genre(tmp_path))[movielens.BY_READER])
    ours, floors = report.figures, report.floors
    assert ours["diversity_by_tags"] < floors["popularity_diversity_by_tags"] - 0.2
    assert ours["coverage"] >= floors["popularity_coverage"]
    assert ours["user_overlap"] < floors["popularity_user_overlap"]
    assert ours["novelty_bits"] > floors["popularity_novelty_bits"]
    for name in ("popularity_lift_doublings", "diversity_by_vectors"):
        assert ours[name] < floors[f"popularity_{name}"]


def test_diversity_is_of_vectors_alone_where_items_have_no_tags(tmp_path):
    figures = told(lightgcn.prepare(circles_of_taste(tmp_path))[""]).figures
    assert "diversity_by_vectors" in figures
    assert "diversity_by_tags" not in figures


def test_nothing_is_said_of_unseen_items_where_there_are_none_or_content_is_unknown(tmp_path):
    all_seen = lightgcn.prepare(circles_of_taste(tmp_path))[""]
    write(tmp_path / "train.txt", ["0 1 2", "1 2 3"])
    write(tmp_path / "test.txt", ["0 9", "1 1"])
    no_content = lightgcn.prepare(tmp_path)[""]
    for task, is_unseen in ((all_seen, False), (no_content, True)):
        assert (task.final.items["id_weight"] == 0).any() == is_unseen
        assert not [name for name in told(task).figures if "unseen" in name]
