"""What the keeper gives back to a cache that lost candidates."""

from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from batch_ranker_world import AS_OF, COUNT, NEW, NUM_USERS, OLD, Place, candidates_in
from feedrank_batch_ranker import keeper as keeper_module
from feedrank_batch_ranker.app import App
from feedrank_batch_ranker.erased import RankedUsers
from feedrank_batch_ranker.keeper import Keeper
from feedrank_batch_ranker.settings import Settings
from feedrank_batch_ranker.writers import writing
from feedrank_core.contracts.redis_keys import CANDIDATES, CURRENT_BUNDLE
from feedrank_core.runtime.bundle_store import CURRENT
from feedrank_core.runtime.metrics import Metrics
from feedrank_core.runtime.redis_clients import sync_client
from processes import Service, free_port, until
from redis import RedisError


@pytest.fixture(scope="module")
def published(tmp_path_factory, _cache_process):
    """A published day, and what it put into the cache."""
    _cache_process.empty()
    place = Place(tmp_path_factory.mktemp("day"), _cache_process.url)
    place("rank")
    place("publish")
    with sync_client(place.url) as cache:
        return place, {key: (cache.dump(key), cache.pttl(key)) for key in cache.scan_iter()}


@pytest.fixture
def place(published, tmp_path, cache):
    """That day, in a folder and a cache of the test's own."""
    day, held = published
    for key, (value, ttl_ms) in held.items():
        cache.restore(key, max(0, ttl_ms), value)
    return day.copied(tmp_path)


@pytest.fixture
def keeper(place, cache):
    settings = Settings(home=place.home.root, chunk_users=64, num_candidates=COUNT)
    at = App(place.store, cache, place.home.features / "users.parquet")
    return Keeper(at, settings, Metrics("batch_ranker"))


def key_of(user: str) -> str:
    return CANDIDATES.key(bundle=NEW, user=user)


def test_a_flushed_cache_has_everybodys_candidates_again_and_then_the_pointer(
    place, cache, tmp_path
):
    before = candidates_in(cache)
    port = str(free_port())
    settings = place.settings(keeper_port=port, keep_every_s="0.05")
    service = Service(tmp_path, "feedrank_batch_ranker", "keep", port=int(port), **settings)
    with service.running():
        service.until_ready()
        cache.flushall()
        until(lambda: cache.get(CURRENT_BUNDLE.key()))
        assert candidates_in(cache) == before
        service.until_ready()


def test_a_whole_cache_is_left_alone(keeper):
    assert keeper.look() == 0


def test_only_who_lacks_candidates_is_ranked_again(keeper, cache):
    cache.delete(key_of("user-1"), key_of("user-2"))
    cache.set(key_of("user-3"), b"as it was")
    assert keeper.look() == 2
    assert cache.exists(key_of("user-1"), key_of("user-2")) == 2
    assert cache.get(key_of("user-3")) == b"as it was"


def test_after_writing_it_rests_but_for_a_cache_that_was_emptied(keeper, cache, monkeypatch):
    monkeypatch.setattr(keeper_module, "REST", 1e6)
    cache.delete(key_of("user-1"))
    assert keeper.look() == 1
    cache.delete(key_of("user-1"))
    assert keeper.look() == 0
    cache.delete(CURRENT_BUNDLE.key())
    assert keeper.look() == 1


def test_a_pointer_that_alone_is_gone_comes_back(keeper, cache):
    cache.delete(CURRENT_BUNDLE.key())
    assert keeper.look() == 0
    assert cache.get(CURRENT_BUNDLE.key()) == NEW.encode()


def test_a_pointer_to_another_bundle_than_the_one_that_serves_is_set_right(keeper, cache):
    cache.set(CURRENT_BUNDLE.key(), OLD)
    assert keeper.look() == 0
    assert cache.get(CURRENT_BUNDLE.key()) == NEW.encode()


def test_the_pointer_of_a_day_that_was_published_meanwhile_stands(keeper, place, cache):
    cache.flushall()

    def publish_another() -> bool:
        (place.store.root / CURRENT).write_text(OLD)
        cache.set(CURRENT_BUNDLE.key(), OLD)
        return False

    assert keeper.look(publish_another) == NUM_USERS
    assert cache.get(CURRENT_BUNDLE.key()) == OLD.encode()


def test_who_was_erased_is_forgotten_at_the_next_look_where_the_cache_failed(
    keeper, place, cache, monkeypatch
):
    cache.delete(key_of("user-0"), key_of("user-1"))
    users = place.home.features / "users.parquet"

    def fail(*_: object) -> int:
        """Two are erased and the cache goes away once they are written."""
        pq.write_table(pq.read_table(users).slice(2), users.with_name("unfinished"))
        users.with_name("unfinished").replace(users)
        raise RedisError("gone")

    with monkeypatch.context() as broken:
        broken.setattr(RankedUsers, "forget_erased", fail)
        with pytest.raises(RedisError):
            keeper.look()
    assert cache.exists(key_of("user-0"))
    keeper.look()
    assert not cache.exists(key_of("user-0"), key_of("user-1"))


class Killed(BaseException):
    pass


def leave_a_mark(place: Place) -> None:
    with pytest.raises(Killed), writing(place.home.features):
        raise Killed


def replace_users(place: Place, rows: pa.Table) -> None:
    users = place.home.features / "users.parquet"
    pq.write_table(rows, users.with_name("unfinished"))
    users.with_name("unfinished").replace(users)


def users_of(place: Place, as_of: datetime = AS_OF) -> pa.Table:
    """The table as it is, but of another day."""
    held = pq.read_table(place.home.features / "users.parquet")
    column = pa.array([as_of] * len(held), held.schema.field("as_of").type)
    return held.set_column(held.schema.get_field_index("as_of"), "as_of", column)


def test_what_a_killed_writer_left_of_erased_readers_goes_at_the_next_look(keeper, place, cache):
    before = candidates_in(cache)
    cache.set(key_of("erased:too"), b"written after the sweep of the erasure")
    cache.set(CANDIDATES.key(bundle=OLD, user="erased"), b"by the day before")
    cache.set(key_of("").encode() + b"\xff", b"no text")
    with writing(place.home.features):
        assert keeper.look() == 0
        assert cache.exists(key_of("erased:too"))
    leave_a_mark(place)
    assert keeper.look() == 0
    assert candidates_in(cache) == before
    cache.set(key_of("erased:too"), b"by nobody who was killed")
    keeper.look()
    assert cache.exists(key_of("erased:too"))


def test_of_a_rank_that_is_killed_beside_it_the_keeper_forgets_who_was_erased(keeper, place, cache):
    keeper.look()
    (place.run / "rank.json").unlink()
    process = place.start("rank", chunk_users="1")
    until((place.run / "rank.json").exists)
    replace_users(place, users_of(place).slice(2))
    process.kill()
    process.communicate()
    keeper.look()
    assert not cache.exists(key_of("user-0"), key_of("user-1"))
    assert len(candidates_in(cache)) == NUM_USERS - 2


def test_a_table_of_before_the_bundle_takes_nobodys_candidates(keeper, place, cache):
    leave_a_mark(place)
    replace_users(place, users_of(place, AS_OF - timedelta(days=1)).slice(2))
    keeper.look()
    assert len(candidates_in(cache)) == NUM_USERS
    replace_users(place, users_of(place, AS_OF + timedelta(days=1)))
    keeper.look()
    assert len(candidates_in(cache)) == NUM_USERS - 2


def test_a_sweep_ends_where_the_keeper_is_told_to_stop_and_the_next_one_does_it(
    keeper, place, cache
):
    cache.set(key_of("erased"), b"")
    leave_a_mark(place)
    keeper.look(lambda: True)
    assert cache.exists(key_of("erased"))
    keeper.look()
    assert not cache.exists(key_of("erased"))


def test_a_missing_users_table_is_trouble_once_the_cache_was_emptied(keeper, place, cache):
    (place.home.features / "users.parquet").unlink()
    cache.flushall()
    with pytest.raises(OSError, match=r"users\.parquet"):
        keeper.look()


def test_a_stop_and_a_replaced_table_end_it_before_the_cache_counts_as_whole(keeper, place, cache):
    cache.flushall()
    assert keeper.look(lambda: True) == 0
    users = place.home.features / "users.parquet"

    def replace() -> bool:
        """Two are erased once the first chunk is written."""
        held = pq.read_table(users)
        if len(held) == NUM_USERS and cache.exists(key_of("user-1")):
            pq.write_table(held.slice(2), users.with_name("unfinished"))
            users.with_name("unfinished").replace(users)
        return False

    assert 0 < keeper.look(replace) < NUM_USERS
    assert not cache.exists(key_of("user-0"), key_of("user-1"), CURRENT_BUNDLE.key())
    assert keeper.look() > 0
    assert cache.exists(key_of("user-2"), key_of(f"user-{NUM_USERS - 1}")) == 2
    assert cache.exists(CURRENT_BUNDLE.key())


def test_before_the_first_day_there_is_nothing_to_keep(tmp_path, cache, cache_url):
    unpublished = Place(tmp_path, cache_url)
    at = App(unpublished.store, cache, unpublished.home.features / "users.parquet")
    settings = Settings(home=unpublished.home.root)
    assert Keeper(at, settings, Metrics("batch_ranker")).look() == 0
