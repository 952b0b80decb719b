"""What a reader's last actions did to their ranking: the same bundle, with and without them.

Two days differ by a retrained model as well; here nothing differs but the actions.
"""

from copy import deepcopy

import numpy as np
from feedrank_batch_ranker.indexing import run_encoder
from feedrank_batch_ranker.readers import UserEncoder, as_readers, read_users
from feedrank_core.contracts.bundle import Part
from feedrank_core.features.encoding import encode_users
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
    full = encoder._history(readers)
    shorter = deepcopy(full)
    shorter.mask[row, -num_last:] = False
    categories = bundle.json(Part.CATEGORIES)
    assert isinstance(categories, list)
    number = categories.index(category)
    of_category_I = np.asarray(bundle.array(Part.ITEM_CATEGORIES)) == number
    vector_ID = np.asarray(bundle.array(Part.ITEM_VECTORS), dtype=np.float32)

    def median_rank(history) -> float:
        inputs = encode_users(encoder.schema, readers.columns, history, now_s=encoder._now_s)
        score_I = vector_ID @ run_encoder(encoder._session, inputs)[row]
        rank_I = np.argsort(np.argsort(-score_I))
        return float(np.median(rank_I[of_category_I]))

    return median_rank(full), median_rank(shorter)
