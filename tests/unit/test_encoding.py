import numpy as np
import pytest
from feedrank_core.features.encoding import (
    ITEM_INPUTS,
    USER_INPUTS,
    FeatureSchema,
    History,
    action_ids,
    encode_items,
    encode_users,
)
from feedrank_core.features.text import text_ids


def items() -> dict[str, list]:
    return {
        "item_id": ["a", "b"],
        "item_type": ["post", "video"],
        "category": ["art", "cars"],
        "language": ["en", "de"],
        "creator_id": ["c1", None],
        "tags": [["x", "y"], None],
        "text": ["Painted bridges", ""],
        "text_vector": [[0.5] * 64, None],
        "image_vector": [None, None],
        "duration_s": [None, 10.0],
    }


def schema() -> FeatureSchema:
    return FeatureSchema.fit(items(), {"country": ["NL"]}, user_dense=["click_7d"])


def test_item_inputs_have_their_names_and_shapes():
    inputs = encode_items(schema(), items(), trained=np.array([True, False]))
    assert tuple(inputs) == ITEM_INPUTS
    assert inputs["id_buckets"].shape == (2, 2)
    assert inputs["id_weight"].ravel().tolist() == [1, 0]
    assert inputs["vector_mask"].tolist() == [[1, 0], [0, 0]]
    assert inputs["text"].shape == (2, 64)
    assert inputs["dense"][1, 0] == pytest.approx(np.log(11))


def test_a_value_never_seen_in_training_is_out_of_vocabulary():
    strange = items() | {"category": ["art", "unheard-of"]}
    assert encode_items(schema(), strange)["categorical"][:, 1].tolist() == [2, 1]


def test_the_schema_survives_its_json():
    assert FeatureSchema.model_validate_json(schema().model_dump_json()) == schema()


def test_user_inputs_have_their_names_and_shapes():
    history = History.empty(1)
    history.mask[0, 0], history.at_s[0, 0] = True, 100.0
    columns = {"country": ["NL"], "interests": [["x"]], "click_7d": [np.e - 1]}
    inputs = encode_users(schema(), columns, history, now_s=160.0)
    assert tuple(inputs) == USER_INPUTS
    assert inputs["history_ages_s"][0, :2].tolist() == [60, 0]
    assert inputs["dense"][0, 0] == pytest.approx(1)
    assert inputs["profile"].tolist() == [[2, 1, 1]]


def test_a_reader_with_nothing_known_is_encoded():
    inputs = encode_users(schema(), {}, History.empty(3), now_s=0.0)
    assert all(len(value) == 3 for value in inputs.values())


def test_related_words_share_ngrams_and_every_id_is_in_range():
    first, second = (set(text_ids(w, 4096, 64)) for w in ("painting", "painted"))
    assert first & second
    assert min(first) >= 2
    assert max(first) < 4096


def test_actions_have_ids_above_padding():
    assert action_ids(schema(), ["view", "unheard-of"]).tolist() == [2, 1]


@pytest.mark.parametrize(
    ("num_items", "num_rows"),
    [(2_000, 1 << 15), (60_000, 1 << 18), (200_000, 1 << 19), (10_000_000, 1 << 22)],
)
def test_items_share_few_rows_while_the_table_is_small(num_items, num_rows):
    assert FeatureSchema.fit({"item_id": range(num_items)}, {}).num_id_buckets == num_rows
