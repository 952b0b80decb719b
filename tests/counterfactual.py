"""What a reader's last actions did to their ranking: the same bundle, with and without them.

Two days differ by a retrained model as well; here nothing differs but the actions.
"""

from dataclasses import replace

import numpy as np
from feedrank_batch_ranker.readers import Readers, UserEncoder, as_readers, read_users
from feedrank_core.contracts.bundle import Part
from feedrank_core.runtime.bundle_store import BundleStore
from feedrank_core.runtime.home import Home

CHUNK = 10_000


def median_ranks(
    home: Home, bundle_id: str, user: str, category: str, num_last: int
) -> tuple[float, float]:
    """Of the category's items among all others: with the last actions, and without them."""
    bundle = BundleStore(home.bundles).open(bundle_id)
    encoder = UserEncoder(bundle)
    (readers,) = map(as_readers, read_users(home.features / "users.parquet", CHUNK, encoder.schema))
    row = readers.ids.index(user)
    categories = bundle.json(Part.CATEGORIES)
    assert isinstance(categories, list)
    of_category_I = np.asarray(bundle.array(Part.ITEM_CATEGORIES)) == categories.index(category)
    vector_ID = np.asarray(bundle.array(Part.ITEM_VECTORS), dtype=np.float32)

    def median_rank(some: Readers) -> float:
        rank_I = np.argsort(np.argsort(-(vector_ID @ encoder.vectors(some)[row])))
        return float(np.median(rank_I[of_category_I]))

    return median_rank(readers), median_rank(without_last(readers, row, num_last))


def without_last(readers: Readers, row: int, num: int) -> Readers:
    """The readers as if one of them had not done the last actions."""
    of_row, key, seconds, actions = readers.history
    kept = np.delete(np.arange(len(of_row)), np.flatnonzero(of_row == row)[-num:])
    shorter = (of_row[kept], key[kept], seconds[kept], [actions[n] for n in kept.tolist()])
    return replace(readers, history=shorter)
