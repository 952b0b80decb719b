"""As a knob of the re-ranking turns, lists gain variety; and the picture of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from feedrank_cli.bench import quality
from feedrank_cli.bench.report import BenchCannotRun, Report
from feedrank_cli.quality import lightgcn, movielens, picture, trade_off
from feedrank_cli.quality.trade_off import MMR, SPREAD, Curves, Point
from feedrank_core.runtime.home import Home
from quality_world import circles_of_taste, films_of_one_genre, short_run

HOME = Home(Path("nowhere"))


def test_the_curve_begins_at_the_plain_ranking_and_turns_ndcg_into_variety(tmp_path):
    task = movielens.prepare(films_of_one_genre(tmp_path))[movielens.BY_READER]
    outcome, report = short_run(task), Report("quality", 0)
    curves = trade_off.tell(report, task, [outcome], prefix="")
    assert curves.space == "diversity_by_tags"
    assert curves.points.keys() == {MMR, SPREAD}
    plain = outcome.measured.values["ndcg_at_10"].mean()
    # With four genres a cap of 1 cannot be kept for ten places: the order is the plain one again.
    for name, most in ((MMR, -1), (SPREAD, -2)):
        points = curves.points[name]
        assert points[0].ndcg == pytest.approx(plain)
        assert points[most].diversity > points[0].diversity + 0.2
        assert points[most].ndcg < points[0].ndcg
    settings = [point.setting for point in curves.points[MMR]]
    assert (settings[0], settings[-1]) == (0.0, 1.0)
    assert report.figures["mmr_share_0_ndcg_at_10"] == pytest.approx(plain)
    assert report.figures["max_per_category_1_diversity_by_tags"] > 0


def test_without_categories_and_tags_the_curve_is_of_mmr_in_the_space_of_the_vectors(tmp_path):
    task = lightgcn.prepare(circles_of_taste(tmp_path))[""]
    curves = trade_off.tell(Report("quality", 0), task, [short_run(task)], prefix="")
    assert curves.space == "diversity_by_vectors"
    assert curves.points.keys() == {MMR}


def test_at_most_so_many_readers_are_drawn_and_always_the_same():
    assert trade_off.drawn(5).tolist() == [0, 1, 2, 3, 4]
    rows = trade_off.drawn(9 * trade_off.MAX_READERS)
    assert len(np.unique(rows)) == trade_off.MAX_READERS
    assert (rows == trade_off.drawn(9 * trade_off.MAX_READERS)).all()


def test_the_same_curves_give_the_same_picture_with_their_words_and_settings(tmp_path):
    points = [Point(n / 10, 0.2 - n / 100, n / 20) for n in range(11)]
    curves = Curves("diversity_by_tags", {MMR: points, SPREAD: points[::2]})
    for name in ("first.svg", "second.svg"):
        picture.draw(tmp_path / name, {"one set": curves, "another": curves})
    drawn = (tmp_path / "first.svg").read_text()
    assert drawn == (tmp_path / "second.svg").read_text()
    for words in ("one set", "another", "NDCG@10", "intra-list diversity, by tags", ">0.4<"):
        assert words in drawn


@pytest.mark.parametrize("name", ["picture.png", "no/such/folder.svg"])
def test_a_picture_that_cannot_be_written_is_refused_before_training(tmp_path, name):
    with pytest.raises(BenchCannotRun, match=r"must end in \.svg, in a folder that is there"):
        quality.run(
            HOME,
            quick=True,
            seed=0,
            data_format="lightgcn",
            path=circles_of_taste(tmp_path),
            picture=tmp_path / name,
        )
