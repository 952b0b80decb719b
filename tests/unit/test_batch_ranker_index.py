"""One test class on every engine."""

from importlib.metadata import requires

import numpy as np
import pytest
from feedrank_batch_ranker.adapters.exact_index import ExactIndex
from feedrank_batch_ranker.indexing import choose_engine, engine
from feedrank_batch_ranker.selection import allowed, best, recall
from feedrank_batch_ranker.settings import Settings
from packaging.requirements import Requirement

NUM_ITEMS = 4000
FLOORS = {"exact": 1.0, "scann": 0.85, "faiss": 0.7}


@pytest.fixture(scope="module")
def vectors():
    chance = np.random.default_rng(5)
    spectrum = np.arange(1, 65) ** -0.5
    items = chance.normal(size=(NUM_ITEMS, 64)) * spectrum
    users = chance.normal(size=(50, 64)) * spectrum
    return items.astype(np.float32), users.astype(np.float32)


@pytest.mark.parametrize("kind", FLOORS)
class TestIndex:
    def test_it_finds_what_exact_search_finds(self, kind, vectors):
        items, users = vectors
        truth, _ = ExactIndex.build(items).search(users, 100)
        found, _ = engine(kind).build(items).search(users, 100)
        assert recall(found, truth) >= FLOORS[kind]

    def test_scores_are_dot_products_in_falling_order(self, kind, vectors):
        items, users = vectors
        index, score = engine(kind).build(items).search(users, 20)
        assert (np.diff(score) <= 1e-5).all()
        exact = np.einsum("bkd,bd->bk", items[index], users)
        assert np.allclose(score, exact, atol=1e-2)

    def test_it_is_the_same_after_save_and_load(self, kind, vectors, tmp_path):
        items, users = vectors
        built = engine(kind).build(items)
        built.save(tmp_path / "here")
        if (tmp_path / "here").exists():
            (tmp_path / "here").rename(tmp_path / "moved")
        loaded = engine(kind).load(tmp_path / "moved", items, built.tuning)
        for one, other in zip(built.search(users, 50), loaded.search(users, 50), strict=True):
            assert np.array_equal(one, other)

    def test_more_than_there_is_gives_all_there_is(self, kind, vectors):
        items, users = vectors
        index, score = engine(kind).build(items).search(users, NUM_ITEMS + 7)
        assert index.shape == score.shape == (50, NUM_ITEMS)
        assert ((index >= -1) & (index < NUM_ITEMS)).all()


def test_small_catalogues_are_searched_exactly():
    assert choose_engine(100, Settings()) == "exact"
    assert choose_engine(100_000, Settings()) in {"scann", "faiss"}


def test_faiss_stands_in_where_scann_cannot_be_imported(monkeypatch):
    monkeypatch.setitem(
        __import__("sys").modules, "feedrank_batch_ranker.adapters.scann_index", None
    )
    assert choose_engine(100_000, Settings()) == "faiss"


def test_seen_inactive_own_and_missing_items_are_dropped():
    index_BK = np.array([[0, 1, 2, 3, 4], [0, 1, 2, 3, -1]], np.int32)
    active_N = np.array([True, True, True, True, False])
    creator_N = np.array([7, 8, 9, 9, 9])
    kept = allowed(
        index_BK,
        seen=(np.array([0, 1]), np.array([2, 3])),
        active_N=active_N,
        creator_N=creator_N,
        own_creator_B=np.array([-1, 7]),
    )
    assert kept.tolist() == [[True, True, False, True, False], [False, True, True, False, False]]
    chosen = best(index_BK, index_BK.astype(np.float32), kept, 2)
    assert [i.tolist() for i, _ in chosen] == [[0, 1], [1, 2]]


@pytest.mark.parametrize(
    ("system", "processor", "library"),
    [
        ("linux", "x86_64", "scann"),
        ("linux", "aarch64", "faiss-cpu"),
        ("darwin", "arm64", "faiss-cpu"),
        ("darwin", "x86_64", "faiss-cpu"),
        ("win32", "AMD64", "faiss-cpu"),
    ],
)
def test_every_machine_is_given_an_engine_that_it_can_install(system, processor, library):
    machine = {"sys_platform": system, "platform_machine": processor}
    wanted = [Requirement(text) for text in requires("feedrank-batch-ranker") or ()]
    engines = [one for one in wanted if one.name in ("scann", "faiss-cpu")]
    installed = [one.name for one in engines if not one.marker or one.marker.evaluate(machine)]
    assert installed == [library]
