import numpy as np
import pytest
from feedrank_core.contracts.redis_keys import CANDIDATES
from feedrank_core.ranking.packed import pack, unpack
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

pairs = st.integers(0, 600).flatmap(
    lambda n: st.tuples(
        arrays(np.uint32, n, elements=st.integers(0, 2**32 - 1)),
        arrays(np.float16, n, elements=st.floats(-60000, 60000, width=16)),
    )
)


@given(pairs)
def test_what_is_packed_comes_back(pair):
    index, score = unpack(pack(*pair))
    assert np.array_equal(index, pair[0])
    assert np.array_equal(score, pair[1].astype(np.float32))


def test_five_hundred_candidates_fit_the_registered_size():
    assert len(pack(np.arange(500), np.ones(500))) <= CANDIDATES.max_bytes


@given(st.binary(min_size=1, max_size=200).filter(lambda b: len(b) % 6))
def test_a_torn_value_is_refused_by_its_length(torn):
    with pytest.raises(ValueError, match=f"{len(torn)} bytes"):
        unpack(torn)
