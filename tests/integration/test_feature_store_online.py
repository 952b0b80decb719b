"""Every online store behind the port: what is written is read, the forgotten are gone."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feedrank_core.contracts.features import COUNTER_COLUMNS, RATES
from feedrank_feature_store.adapters.feast_online import FeastOnline
from feedrank_feature_store.adapters.memory_online import MemoryOnline
from feedrank_feature_store.ports import OnlineRow, OnlineStoreError
from feedrank_feature_store.stream.inputs import microseconds

T0 = datetime(2026, 1, 1, tzinfo=UTC)
LATER = T0 + timedelta(milliseconds=1)


def row(user: str, amount: float, *, profile: bool = True) -> OnlineRow:
    history = {"hist_item_key": [-(2**63), 7], "hist_action": ["like", "view"]}
    history |= {"hist_at": [T0, LATER], "top_categories": ["a"], "top_category_shares": [1.0]}
    history |= {"top_creators": [], "top_creator_shares": []} | dict.fromkeys(RATES, amount)
    known = {"country": "NL", "age_band": "25-34", "platform": "tv", "interests": ["x", "y"]}
    counters = dict.fromkeys(COUNTER_COLUMNS, amount) | {"counted_at_us": microseconds(T0)}
    return OnlineRow(user, counters, history, known if profile else None)


class OnlineContract:
    """Subclasses give `store` and `read(user)`, the features by column."""

    def test_a_write_is_read_as_it_was(self, store, read):
        store.write([row("u", 1.5), row("v", 2.5)], T0)
        found = read("u")
        assert {found[name] for name in (*COUNTER_COLUMNS, *RATES)} == {1.5}
        assert found["hist_item_key"] == [-(2**63), 7]
        assert found["hist_action"] == ["like", "view"]
        assert found["interests"] == ["x", "y"] and found["country"] == "NL"
        assert read("v")["likes_7d"] == 2.5

    def test_writes_within_one_second_replace_each_other(self, store, read):
        store.write([row("w", 1.0)], T0)
        store.write([row("w", 2.0, profile=False)], LATER)
        assert read("w")["likes_7d"] == 2.0
        assert read("w")["country"] == "NL"

    def test_a_forgotten_reader_is_gone_and_may_come_back(self, store, read):
        store.write([row("y", 1.0), row("z", 1.0)], T0)
        store.forget(["y"])
        assert read("y").get("likes_7d") is None and read("y").get("country") is None
        assert read("z")["likes_7d"] == 1.0
        store.write([row("y", 3.0)], T0)
        assert read("y")["likes_7d"] == 3.0


class TestMemoryOnline(OnlineContract):
    @pytest.fixture
    def store(self):
        return MemoryOnline()

    @pytest.fixture
    def read(self, store):
        return store.read


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


class TestFeastOnline(OnlineContract):
    @pytest.fixture
    def store(self, home, cache_url, feast_store):
        return FeastOnline(home, cache_url)

    @pytest.fixture
    def read(self, home, cache_url, store, feast_store):
        service = feast_store.open_store(home, cache_url)

        def one(user: str) -> dict:
            views = {"user_counters": COUNTER_COLUMNS, "user_profile": ("country", "interests")}
            views["user_history"] = ("hist_item_key", "hist_action", *RATES)
            names = [f"{view}:{name}" for view, columns in views.items() for name in columns]
            answer = service.get_online_features(features=names, entity_rows=[{"user_id": user}])
            return {name: values[0] for name, values in answer.to_dict().items()}

        return one

    def test_a_materialisation_leaves_what_was_written_after_its_rows(
        self, home, cache_url, store, read, feast_store
    ):
        """Feast's own writes compare instants, so the daily run never takes a reader back."""
        (home / "features").mkdir(exist_ok=True)
        older = {name: [9.0, 9.0] for name in COUNTER_COLUMNS}
        at = pa.array([T0, T0], pa.timestamp("us", tz="UTC"))
        table = {"user_id": ["new", "idle"], "event_timestamp": at}
        table |= {"counted_at_us": [microseconds(T0)] * 2} | older
        pq.write_table(pa.table(table), home / "features" / "user_counters.parquet")
        store.write([row("new", 1.0)], LATER)
        service = feast_store.open_store(home, cache_url)
        service.materialize(T0 - timedelta(days=1), T0 + timedelta(days=1), ["user_counters"])
        assert (read("new")["likes_7d"], read("idle")["likes_7d"]) == (1.0, 9.0)

    def test_a_store_that_is_silent_is_said_to_be(self, store, cache_server):
        cache_server.kill()
        try:
            with pytest.raises(OnlineStoreError):
                store.write([row("u", 1.0)], T0)
        finally:
            cache_server.start()
