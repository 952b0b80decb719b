from types import SimpleNamespace

import numpy as np
from feedrank_batch_ranker.readers import Readers, UserEncoder
from feedrank_core.features.encoding import HISTORY_LENGTH, FeatureSchema


def encoder() -> UserEncoder:
    made = object.__new__(UserEncoder)
    parts = SimpleNamespace(
        schema=FeatureSchema(),
        _key_N=np.array([-5, 3, 40]),
        _vector_ND=np.eye(3, 64, dtype=np.float32),
    )
    made.__dict__.update(vars(parts))
    return made


def readers(*histories: list[int]) -> Readers:
    row = np.repeat(np.arange(len(histories)), [len(h) for h in histories])
    key = np.array([k for h in histories for k in h], np.int64)
    flat = (row, key, np.arange(len(key), dtype=float), ["like"] * len(key))
    ids = [f"user-{n}" for n in range(len(histories))]
    return Readers(ids, {}, flat, (row, key))


def test_the_newest_action_stands_last_and_unknown_items_are_masked():
    history = encoder()._history(readers([3, 99], [], [40, -5]))
    assert history.mask.sum(axis=1).tolist() == [1, 0, 2]
    assert history.mask[0, -2]
    assert history.vectors[0, -2].argmax() == 1
    assert history.vectors[2, -2:].argmax(axis=1).tolist() == [2, 0]
    assert history.at_s[2, -2:].tolist() == [2.0, 3.0]


def test_a_history_that_is_too_long_loses_its_oldest():
    history = encoder()._history(readers([3] * 5 + [40] * HISTORY_LENGTH))
    assert history.mask.all()
    assert (history.vectors[0].argmax(axis=1) == 2).all()


def test_keys_that_the_bundle_lacks_have_no_dense_index():
    assert encoder().dense_indices(np.array([41, 40, -6, 3, -5])).tolist() == [-1, 2, -1, 1, 0]
