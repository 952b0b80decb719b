"""What an example of the ranker knows is what was known just before its slate was served."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from feedrank_core.contracts.features import COUNTER_COLUMNS, Counter
from feedrank_core.contracts.slates import HEADS, Head, Source
from feedrank_core.features.encoding import FeatureSchema
from feedrank_core.features.quality import PRIOR_IMPRESSIONS
from feedrank_core.features.ranking import (
    AFFINITIES,
    COUNTED,
    DENSE_COLUMNS,
    FEW_ITEMS,
    PAIR_COUNTED,
    PRIOR_RATES,
    PRIOR_SHARE,
    counter_dense,
)
from feedrank_trainer.examples import ABSENT, Log, histories_before
from feedrank_trainer.ranking.counting import sums_before
from feedrank_trainer.ranking.examples import (
    SHOWN_LENGTH,
    ExampleError,
    RankingExamples,
    examples_of,
)
from feedrank_trainer.ranking.histories import engagement_log
from feedrank_trainer.ranking.impressions import (
    NOWHERE,
    SOURCES,
    UNTOLD,
    Impressions,
    labelled_impressions,
)

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
PLACES = json.dumps([{"item_id": "b", "source": "fresh"}, {"item_id": "a", "source": "cached"}])


def events(rows: list[tuple], names: str) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [[] for _ in names.split()]
    return pa.table(dict(zip(names.split(), map(list, columns), strict=True)))


def after(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


@pytest.fixture
def lake() -> duckdb.DuckDBPyConnection:
    """One slate of three places at noon, and what became of it."""
    connection = duckdb.connect()
    tables = {
        "slates": events([("r1", NOON, PLACES)], "request_id served_at items_json"),
        "impressions": events(
            [
                ("r1", "ada", "a", 0, "home", after(1)),
                ("r1", "ada", "b", 1, "home", after(2)),
                ("r1", "ada", "c", None, "explore", after(3)),
                ("r1", "ada", "withdrawn", 3, "home", after(3)),
                ("nobody-knows", "ada", "a", 0, "home", after(4)),
            ],
            "request_id user_id item_id position surface accepted_at",
        ),
        "interactions": events(
            [
                ("r1", "a", "view", 3.0, after(5)),
                ("r1", "a", "click", None, after(4)),
                ("r1", "b", "hide", None, after(119)),
                ("r1", "c", "like", None, after(121)),
            ],
            "request_id item_id event_type dwell_s accepted_at",
        ),
    }
    for name, table in tables.items():
        connection.register(name, table)
    return connection


def labelled(lake: duckdb.DuckDBPyConnection, *, as_of: datetime) -> Impressions:
    return labelled_impressions(lake, pa.array(["ada"]), pa.array(["a", "b", "c"]), as_of=as_of)


def test_an_action_within_two_hours_of_serving_is_a_label_and_a_later_one_is_not(lake):
    shown = labelled(lake, as_of=after(1000))
    done = {head: shown.label(head).tolist() for head in HEADS}
    assert done.pop(Head.CLICK) == [1, 0, 0]
    assert done.pop(Head.HIDE) == [0, 1, 0]
    assert done.pop(Head.DWELL) == pytest.approx([np.log(4), 0, 0])
    assert set(map(tuple, done.values())) == {(0, 0, 0)}
    assert shown.item.tolist() == [0, 1, 2]
    assert shown.position.tolist() == [0, 1, NOWHERE]


def test_each_impression_has_the_source_that_its_slate_names(lake):
    found = labelled(lake, as_of=after(1000)).source.tolist()
    assert found == [SOURCES.index(Source.CACHED), SOURCES.index(Source.FRESH), UNTOLD]


def test_a_source_of_a_later_release_is_untold(lake):
    places = json.dumps([{"item_id": "a", "source": "of a later release"}])
    lake.register("slates", events([("r1", NOON, places)], "request_id served_at items_json"))
    assert set(labelled(lake, as_of=after(1000)).source.tolist()) == {UNTOLD}


def test_each_thing_that_came_has_its_own_time(lake):
    shown = labelled(lake, as_of=after(1000))
    assert (shown.shown_after_s / 60).tolist() == [1, 2, 3]
    done_after = {head: shown.done_after_s(head) / 60 for head in HEADS}
    assert done_after[Head.CLICK] == pytest.approx([4, np.nan, np.nan], nan_ok=True)
    assert done_after[Head.HIDE] == pytest.approx([np.nan, 119, np.nan], nan_ok=True)
    assert done_after[Head.DWELL] == pytest.approx([5, np.nan, np.nan], nan_ok=True)


def test_what_a_host_tells_of_before_its_slate_came_with_it(lake):
    early = events([("r1", "ada", "a", 0, "home", after(-1))],
                   "request_id user_id item_id position surface accepted_at")  # fmt: skip
    lake.register("impressions", early)
    assert labelled(lake, as_of=after(1000)).shown_after_s.tolist() == [0]


def test_what_came_of_a_slate_is_not_in_its_history(lake):
    engaged = [
        ("ada", "b", "click", after(-30), "r0"),
        ("ada", "a", "click", after(-0.05), "r1"),
        ("ada", "c", "like", after(10), None),
    ]
    lake.register("engagements", events(engaged, "user_id item_id action at request_id"))
    log = engagement_log(lake, pa.array(["ada"]), pa.array(["a", "b", "c"]), FeatureSchema())
    assert log.item.tolist() == [1, 0, 2]
    assert ((log.at_s - NOON.timestamp()) / 60).tolist() == [-30, 0, 10]
    items, _, _ = histories_before(log, np.array([0]), np.array([NOON.timestamp()]))
    assert items[0, -2:].tolist() == [ABSENT, 1]


def test_a_slate_whose_window_is_open_teaches_nothing_yet(lake):
    assert len(labelled(lake, as_of=after(119))) == 0
    assert len(labelled(lake, as_of=after(120))) == 3


def test_sums_are_of_what_lies_strictly_before_and_decay():
    rng = np.random.default_rng(0)
    key, at_s = rng.integers(0, 5, 200), rng.integers(0, 40, 200).astype(float)
    value = rng.random(200)
    found = sums_before(
        key, at_s, {"v": value}, {"10s": 10.0, "forever": np.inf}, key_Q=key, at_Q=at_s
    )
    for half_life_s, sums in ((10.0, found["v_10s"]), (np.inf, found["v_forever"])):
        for q in range(200):
            before = (key == key[q]) & (at_s < at_s[q])
            weights = 2 ** (-(at_s[q] - at_s[before]) / half_life_s)
            assert sums[q] == pytest.approx((value[before] * weights).sum(), abs=1e-5)


def test_the_counters_of_a_week_hold_in_a_log_of_years():
    rng = np.random.default_rng(0)
    key, at_s = rng.integers(0, 40, 4000), np.sort(rng.integers(0, 3 * 365, 4000)) * 86_400.0
    found = sums_before(
        key, at_s, {"v": np.ones(4000)}, {"7d": 7 * 86_400.0}, key_Q=key, at_Q=at_s
    )["v_7d"]
    for q in range(0, 4000, 37):
        before = (key == key[q]) & (at_s < at_s[q])
        expected = 2 ** (-(at_s[q] - at_s[before]) / (7 * 86_400.0))
        assert found[q] == pytest.approx(expected.sum(), rel=1e-5, abs=1e-6)


def impressions(num: int, **given: np.ndarray) -> Impressions:
    """A reader's slates of one item each, a minute apart, nothing done."""
    minute = 60.0 * np.arange(num)
    usual = {
        "user": np.zeros(num, np.int64),
        "item": np.arange(num) % 2,
        "slate": np.arange(num),
        "position": np.zeros(num, np.int64),
        "surface": np.zeros(num, np.int64),
        "source": np.full(num, UNTOLD),
        "served_s": minute,
        "shown_after_s": np.ones(num, np.float32),
        "done_after_s_RH": np.full((num, len(HEADS)), np.nan, np.float32),
        "label_RH": np.zeros((num, len(HEADS)), np.float32),
    }
    return Impressions(**(usual | given))


def described(
    shown: Impressions,
    created_s_N: np.ndarray | None = None,
    contents: dict[str, np.ndarray] | None = None,
) -> RankingExamples:
    nothing = np.empty(0, np.int64)
    log = Log(nothing, nothing, nothing, np.empty(0), np.empty(0, bool))
    groups = {name: np.array([0, 1]) for name in AFFINITIES}
    profiles = {"profile": np.zeros((1, 3), np.int64), "interests": np.zeros((1, 8), np.int64)}
    created_s_N = np.zeros(2) if created_s_N is None else created_s_N
    return examples_of(shown, log, groups, created_s_N, profiles, contents or {})


def test_an_impression_and_an_action_count_each_once_it_is_told():
    done_after_s_RH = np.full((4, len(HEADS)), np.nan, np.float32)
    done_after_s_RH[0, HEADS.index(Head.CLICK)] = 100.0
    examples = described(impressions(4, done_after_s_RH=done_after_s_RH))
    dense_SF = dict(zip(DENSE_COLUMNS, examples.user_dense_SF.T, strict=True))
    shown = np.expm1(dense_SF["impressions_forever_log1p"])
    assert shown == pytest.approx([0, 1, 2, 3], abs=1e-5)
    prior = np.log(PRIOR_RATES[Counter.CLICKS])
    clicked = np.log(shown + PRIOR_IMPRESSIONS) + dense_SF["clicks_forever_log_rate"]
    counted = np.exp(clicked) - PRIOR_IMPRESSIONS * np.exp(prior)
    assert counted == pytest.approx([0, 0, 1, 1], abs=1e-4)


def test_what_was_shown_before_a_slate_is_told_newest_last_and_the_slate_itself_is_not():
    examples = described(impressions(4, item=np.array([1, 0, 1, 1])))
    assert examples.shown_SM.shape == (4, SHOWN_LENGTH)
    assert [row[row >= 0].tolist() for row in examples.shown_SM] == [[], [1], [1, 0], [1, 0, 1]]
    assert examples.shown_ages_SM[2, -2:].tolist() == [119, 59]


def test_what_was_chosen_for_a_reader_tells_of_them_and_what_was_popular_does_not():
    cached, popular = (SOURCES.index(s) for s in (Source.CACHED, Source.GLOBAL_POPULAR))
    source = np.array([cached, popular, cached, cached])
    shown = impressions(4, item=np.array([0, 1, 1, 0]), source=source)
    content = np.array([[3.0, 0.0], [1.0, 0.0]])
    examples = described(shown, contents={"text_vector": content})
    assert examples.shown_sources_SM[3, -3:].tolist() == [cached + 1, popular + 1, cached + 1]
    _, near_shown_R, near_chosen_R = examples.pair_dense_RF[:, -3:].T
    assert near_shown_R[2] == pytest.approx(0, abs=1e-3)
    assert near_chosen_R[2] == pytest.approx(-1 / (1 + FEW_ITEMS), rel=1e-3)
    # Of two that were chosen before the last slate one was of its item's group, in all groupings.
    first = len(AFFINITIES) * 2 * len(PAIR_COUNTED)
    share_RF = examples.pair_dense_RF[:, first : first + 2 * len(AFFINITIES)]
    expected = (1 + PRIOR_IMPRESSIONS * PRIOR_SHARE) / (2 + PRIOR_IMPRESSIONS)
    assert np.exp(share_RF[3]) == pytest.approx(expected, rel=1e-3)
    assert np.exp(share_RF[0]) == pytest.approx(PRIOR_SHARE, rel=1e-3)


def test_an_item_is_near_a_reader_who_was_shown_its_like():
    shown = impressions(4, item=np.array([0, 0, 0, 1]))
    content = np.array([[3.0, 0.0], [1.0, 0.0]])
    examples = described(shown, contents={"text_vector": content})
    _, near_shown_R, _ = examples.pair_dense_RF[:, -3:].T
    assert near_shown_R[0] == 0
    # Contents are 1 and -1 once their mean is taken off; each of three weighs nearly 1.
    assert near_shown_R[3] == pytest.approx(-3 / (3 + FEW_ITEMS), rel=1e-3)
    assert near_shown_R[1] == pytest.approx(1 / (1 + FEW_ITEMS), rel=1e-3)


def test_a_head_that_is_not_known_counts_as_nothing():
    label_RH = np.full((3, len(HEADS)), np.nan, np.float32)
    examples = described(impressions(3, label_RH=label_RH))
    zeros = described(impressions(3))
    assert np.array_equal(examples.item_dense_RF, zeros.item_dense_RF)


def test_a_feature_that_is_no_number_is_an_error_that_names_it():
    with pytest.raises(ExampleError, match="item_dense"):
        described(impressions(2), created_s_N=np.array([0.0, np.nan]))


def test_dense_columns_are_no_counters():
    width = counter_dense({f"{c}_{s}": np.zeros(1) for c in COUNTED for s in ("7d", "forever")})
    assert len(DENSE_COLUMNS) == width.shape[-1]
    assert not set(DENSE_COLUMNS) & set(COUNTER_COLUMNS)


def test_rates_of_nothing_are_the_prior_whatever_the_counter():
    counters = {f"{c}_{s}": np.zeros(1) for c in COUNTED for s in ("7d", "forever")}
    assert np.isfinite(counter_dense(counters)).all()
