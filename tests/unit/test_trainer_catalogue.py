"""A catalogue's columns: what the item encoding reads, in the order of the dense index."""

import numpy as np
import pyarrow as pa
import pytest
from feedrank_core.contracts.ids import item_keys
from feedrank_core.contracts.items import TEXT_VECTOR_DIM
from feedrank_core.features.encoding import FeatureSchema, encode_items
from feedrank_trainer.catalogue import Catalogue, vectors_of

IDS = [f"item-{n}" for n in range(6)]
LISTS = [None, *([float(n)] * TEXT_VECTOR_DIM for n in range(1, 5)), None]
KINDS = [pa.list_(pa.float64()), pa.list_(pa.float32(), TEXT_VECTOR_DIM)]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_column_of_vectors_is_a_matrix_with_nan_where_there_is_none(kind: pa.DataType) -> None:
    column = pa.chunked_array([pa.array(LISTS[:2], kind), pa.array(LISTS[2:], kind)])
    found = vectors_of(column, TEXT_VECTOR_DIM)
    assert found.dtype == np.float32
    expected = [[np.nan if row is None else row[0]] * TEXT_VECTOR_DIM for row in LISTS]
    np.testing.assert_array_equal(found, expected)


def test_vectors_are_encoded_as_their_lists_are() -> None:
    nothing = [None] * len(IDS)
    table = pa.table({"item_id": IDS, "text_vector": LISTS, "image_vector": nothing})
    columns = Catalogue.of(table).columns()
    order = np.argsort(item_keys(IDS))
    listed = {name: [table[name][int(row)].as_py() for row in order] for name in columns}
    assert isinstance(columns["text_vector"], np.ndarray)
    schema = FeatureSchema.fit(listed, {})
    found, expected = encode_items(schema, columns), encode_items(schema, listed)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    assert expected["vector_mask"].sum(axis=0).tolist() == [4, 0]
