from dataclasses import replace
from typing import get_args

import duckdb
import numpy as np
import onnxruntime
import pytest
from feedrank_core.contracts.bundle import Part, Stage
from feedrank_core.features.encoding import FeatureSchema, encode_items
from feedrank_core.runtime.bundle_store import BundleStore
from feedrank_core.runtime.metrics import Metrics
from feedrank_trainer.app import make_bundle
from feedrank_trainer.configuration import TrainingConfig
from feedrank_trainer.examples import concatenate, read_shard
from feedrank_trainer.pairs import write_pairs
from feedrank_trainer.presets import PRESETS
from feedrank_trainer.run import open_run, train_bundle
from feedrank_trainer.settings import Settings
from feedrank_trainer.training import fit
from trainer_world import AS_OF, NUM_ITEMS, NUM_USERS, write_features

CONFIG = TrainingConfig(epochs=2, batch_size=64, num_uniform=32)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("trainer")
    write_features(root / "features")
    (root / "run").mkdir()
    with duckdb.connect() as connection:
        write_pairs(root / "features", root / "run", as_of=AS_OF, connection=connection)
    return root, open_run(root / "features", root / "run")


@pytest.fixture(scope="module")
def bundle(prepared):
    root, run = prepared
    store = BundleStore(root / "bundles")
    return train_bundle(run, store, config=CONFIG, seed=7, offsets={"interactions/0": 5})


def test_the_setting_knows_every_preset_and_no_other():
    assert get_args(Settings.model_fields["preset"].annotation) == tuple(PRESETS)


@pytest.mark.parametrize("preset", sorted(PRESETS.keys() - {"feed"}))
def test_every_preset_seals_a_bundle_whose_encoders_answer_as_the_towers_do(prepared, preset):
    root, run = prepared
    config = replace(PRESETS[preset], epochs=1, batch_size=64, num_uniform=32)
    sealed = train_bundle(run, BundleStore(root / preset), config=config, seed=7, offsets={})
    assert sealed is not None
    assert sealed.manifest.config["history"] == config.history


def test_no_history_holds_its_own_label_or_anything_later(prepared):
    _, run = prepared
    for path in run.shards:
        for piece in read_shard(path):
            present = piece["history"] >= 0
            assert (piece["history_ages_s"][present] > 0).all()
            for user in np.unique(piece["user"]):
                of_user = np.flatnonzero(piece["user"] == user)
                assert present[of_user].sum(axis=1).tolist() == list(range(len(of_user)))


def test_the_examples_do_not_hang_on_how_the_log_is_cut(prepared, tmp_path, monkeypatch):
    root, run = prepared
    monkeypatch.setattr("feedrank_trainer.pairs.ROWS_AT_A_TIME", 5)
    with duckdb.connect() as connection:
        write_pairs(root / "features", tmp_path, as_of=AS_OF, connection=connection)
    cut = open_run(root / "features", tmp_path)
    assert len(cut.shards) == NUM_USERS
    whole, found = (
        concatenate([piece for path in one.shards for piece in read_shard(path)])
        for one in (run, cut)
    )
    for name, expected in whole.items():
        np.testing.assert_array_equal(found[name], expected, err_msg=name)


def test_the_bundle_is_sealed_and_its_items_ascend_by_key(bundle):
    assert bundle.manifest.stage is Stage.TRAINED
    assert bundle.manifest.offsets == {"interactions/0": 5}
    assert (np.diff(bundle.array(Part.ITEM_KEYS)) > 0).all()
    assert not bundle.array(Part.ITEM_ACTIVE)[bundle.array(Part.ITEM_IDS) == b"item-3"].any()
    missing = [p for p in Part if not p.value.startswith("index/") and not bundle.part(p).exists()]
    assert missing == []


def test_metrics_tell_of_the_examples_and_of_each_epoch(prepared):
    root, run = prepared
    metrics = Metrics("trainer")
    settings = Settings(home=root, epochs=2, batch_size=64, threads=1)
    make_bundle(settings, root / "run", metrics, seed=7, epochs=None)

    def value(name: str) -> float:
        found = metrics.registry.get_sample_value(f"feedrank_trainer_{name}")
        assert found is not None
        return found

    assert value("pairs") == run.num_pairs
    assert value("epochs_total") == 2
    fewest = 2 * -(-sum(at_s < run.cuts_s[0] for at_s in _moments(run)) // 64)
    # The last batch of every shard may be short.
    assert fewest <= value("steps") <= fewest + 2 * len(run.shards)
    assert 0 < value("loss") < 10
    assert 0 <= value("validation_ndcg") <= 1


def _moments(run) -> list[float]:
    return [at_s for path in run.shards for piece in read_shard(path) for at_s in piece["at_s"]]


def test_popular_lists_hold_active_items_for_everyone_and_each_segment(bundle):
    active = bundle.array(Part.ITEM_ACTIVE)
    assert len(bundle.popular.everyone) == NUM_ITEMS - 1
    assert active[list(bundle.popular.everyone)].all()
    assert set(bundle.popular.segments) == {"NL|web", "DE|web"}


def test_the_item_encoder_ranks_an_item_published_after_training(bundle):
    schema = FeatureSchema.model_validate_json(bundle.part(Part.FEATURE_SCHEMA).read_bytes())
    fresh = encode_items(schema, {"item_id": ["new"]}, trained=np.array([False]))
    session = onnxruntime.InferenceSession(bundle.part(Part.ITEM_ENCODER))
    vector = np.asarray(session.run(["vector"], fresh)[0])
    assert vector.shape == (1, 64)
    assert np.isfinite(vector).all()


def test_what_is_measured_was_fitted_to_nothing_of_the_later_slices(prepared, monkeypatch):
    root, run = prepared
    fits = []

    def watched(source, *arguments, **more):
        pieces = source.pieces(np.random.default_rng(0))
        fits.append((more.get("validate"), np.concatenate([piece["at_s"] for piece in pieces])))
        return fit(source, *arguments, **more)

    monkeypatch.setattr("feedrank_trainer.run.fit", watched)
    train_bundle(run, BundleStore(root / "split"), config=CONFIG, seed=7, offsets={})
    (validate, measured_s), (no_validate, everything_s) = fits
    cut_s, test_s = run.cuts_s
    assert validate is not None and no_validate is None
    assert len(everything_s) == run.num_pairs
    assert sorted(measured_s) == sorted(everything_s[everything_s < cut_s])
    assert cut_s < test_s < everything_s.max()


def test_the_same_seed_gives_the_same_vectors(prepared, bundle):
    root, run = prepared
    again = train_bundle(run, BundleStore(root / "again"), config=CONFIG, seed=7, offsets={})
    assert again is not None
    vectors = []
    for one in (bundle, again):
        session = onnxruntime.InferenceSession(one.part(Part.ITEM_ENCODER))
        inputs = dict(np.load(one.part(Part.ITEM_INPUTS)))
        vectors.append(session.run(["vector"], inputs)[0])
    np.testing.assert_array_equal(*vectors)


def test_the_metrics_stand_beside_both_baselines(bundle):
    metrics = bundle.json(Part.METRICS)
    assert {"two_tower", "popularity", "item_knn", "lead_over_popularity"} <= set(metrics)
