import unicodedata

import numpy as np
import pytest
from feedrank_core.contracts.ids import MAX_ID_LENGTH, ExternalId, item_key, item_keys
from feedrank_core.runtime.bus import partition_of
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

IDS = TypeAdapter(ExternalId)
PRINTABLE = st.text(
    st.characters(exclude_categories=("C", "Zl", "Zp")), min_size=1, max_size=MAX_ID_LENGTH
)
REFUSED = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


@given(PRINTABLE)
def test_a_printable_id_is_taken_as_it_is(text: str) -> None:
    assert IDS.validate_python(text) == text


@given(PRINTABLE, st.characters(categories=("Cc", "Zl", "Zp")), st.integers(0, MAX_ID_LENGTH))
def test_an_id_with_a_control_character_is_refused(text: str, bad: str, place: int) -> None:
    assert unicodedata.category(bad) in REFUSED
    with pytest.raises(ValidationError):
        IDS.validate_python((text[:place] + bad + text[place:])[: MAX_ID_LENGTH + 1] + bad)


@pytest.mark.parametrize(
    "text", ["", "a" * (MAX_ID_LENGTH + 1), "a\x00", "a\n", "\u202e", "\ud800", "a\u2028b"]
)
def test_an_empty_long_or_unprintable_id_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        IDS.validate_python(text)


@given(st.lists(PRINTABLE, max_size=20))
def test_item_keys_are_signed_64_bit_and_the_same_one_by_one(ids: list[str]) -> None:
    keys = item_keys(ids)
    assert keys.dtype == np.int64
    assert keys.tolist() == [item_key(i) for i in ids]


def test_an_item_key_never_changes() -> None:
    assert item_key("video/8812") == -6008715532037549069


@given(PRINTABLE, st.integers(1, 512))
def test_a_key_has_one_partition_in_range(key: str, num_partitions: int) -> None:
    partition = partition_of(key, num_partitions)
    assert 0 <= partition < num_partitions
    assert partition == partition_of(key, num_partitions)
