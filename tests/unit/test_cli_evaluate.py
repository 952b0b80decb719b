"""`feedrank evaluate` on bundles that are whole, and on harmed ones."""

import orjson
import pytest
from feedrank_cli.errors import CommandError
from feedrank_cli.evaluate import measured
from feedrank_core.contracts.bundle import Part
from feedrank_core.runtime.bundle_store import BundleStore
from gateway_world import FIRST, write_bundle

METRICS = {"two_tower": {"ndcg_at_10": 0.25}}


@pytest.fixture
def store(tmp_path):
    """A store whose only bundle has metrics."""
    bundle = write_bundle(tmp_path)
    bundle.part(Part.METRICS).write_bytes(orjson.dumps(METRICS))
    store = BundleStore(tmp_path)
    store.seal(bundle.manifest)
    return store


def test_the_newest_bundle_is_read_where_none_serves(store):
    bundle, metrics = measured(store, None)
    assert (bundle.bundle_id, metrics) == (FIRST, METRICS)


@pytest.mark.parametrize("harm", [None, "{", '{"two_tower":{}}'])
def test_harmed_metrics_are_told_with_their_file(store, harm):
    path = store.root / FIRST / Part.METRICS
    path.unlink()
    if harm is not None:
        path.write_text(harm)
    with pytest.raises(CommandError, match=str(path)):
        measured(store, None)


def test_other_harmed_files_do_not_matter_to_the_metrics(store):
    (store.root / FIRST / Part.ITEM_KEYS).write_bytes(b"")
    assert measured(store, FIRST)[1] == METRICS
