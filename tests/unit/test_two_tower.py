from dataclasses import replace

import numpy as np
import pytest
import torch
from feedrank_core.contracts.bundle import EMBEDDING_DIM
from feedrank_core.features.encoding import (
    USER_INPUTS,
    FeatureSchema,
    History,
    encode_items,
    encode_users,
)
from feedrank_core.models.item_tower import Centred, as_item, as_reader
from feedrank_core.models.two_tower import (
    USER_TOWERS,
    Batch,
    TwoTower,
    binary_cross_entropy,
    known_positives,
    sampled_softmax,
)
from torch import nn


def batch(history: list[list[int]], positive: list[int], negative: list[int], user: list[int]):
    mask = torch.tensor([[float(i >= 0) for i in row] for row in history])
    return Batch(
        item_inputs={},
        user_inputs={"history_mask": mask},
        history=torch.tensor(history).clamp(min=0),
        positive=torch.tensor(positive),
        row=torch.arange(len(positive)),
        negative=torch.tensor(negative),
        log_q=torch.zeros(6),
        user=torch.tensor(user),
    )


def test_a_readers_positives_and_history_are_no_negatives_wherever_they_are_met():
    work = batch([[4, -1], [-1, -1], [-1, -1]], [0, 1, 2], [0, 4, 5], [7, 7, 8])
    hidden = known_positives(work, torch.tensor([0, 1, 2, 0, 4, 5]), 6)
    assert hidden.int().tolist() == [
        [1, 1, 0, 1, 1, 0],
        [1, 1, 0, 1, 0, 0],
        [0, 0, 1, 0, 0, 0],
    ]


@pytest.fixture
def small() -> tuple[TwoTower, Batch]:
    """Towers, and two readers with one positive each among three uniform negatives."""
    torch.manual_seed(0)
    schema = FeatureSchema()
    items = encode_items(schema, {"item_id": list("abcdef")})
    users = encode_users(schema, {}, History.empty(2), now_s=0.0)
    users = {name: torch.from_numpy(users[name]) for name in USER_INPUTS[1:]}
    users["history_mask"][:, -1] = 1.0
    work = Batch(
        item_inputs={name: torch.from_numpy(values) for name, values in items.items()},
        user_inputs=users,
        history=torch.arange(2).repeat(50, 1).T,
        positive=torch.tensor([2, 3]),
        row=torch.arange(2),
        negative=torch.tensor([4, 5, 5]),
        log_q=torch.randn(6),
        user=torch.arange(2),
    )
    return TwoTower(schema, dropout=0.0, id_dropout=0.0).eval(), work


def test_the_correction_takes_log_q_off_every_column_and_off_the_positives_among_them(small):
    model, work = small
    own, scores, _ = model(work)
    plain_own, plain, _ = model(replace(work, log_q=torch.zeros(6)))
    column = torch.cat([work.positive, work.negative])
    torch.testing.assert_close(scores, plain - work.log_q[column])
    torch.testing.assert_close(own, plain_own - work.log_q[work.positive])
    torch.testing.assert_close(own, scores.diagonal())


def test_positives_that_are_no_columns_are_not_corrected(small):
    model, work = small
    own, scores, hidden = model(replace(work, in_batch=False))
    plain_own, _, _ = model(replace(work, log_q=torch.zeros(6)))
    torch.testing.assert_close(own, plain_own)
    assert scores.shape == hidden.shape == (2, 3)


def test_with_one_positive_a_row_the_loss_is_the_cross_entropy_of_its_column():
    score = torch.tensor([[1.0, 2.0, -1.0], [0.5, 1.5, 3.0]])
    own = torch.eye(2, 3, dtype=torch.bool)
    found = sampled_softmax(score.diagonal(), score, own, torch.arange(2))
    torch.testing.assert_close(found, nn.functional.cross_entropy(score, torch.arange(2)))


def test_the_positives_of_one_row_do_not_compete_and_weigh_the_root_of_their_number():
    score = torch.tensor([[2.0, 1.0, 0.5, 0.0], [0.0, 0.0, 1.0, 0.5]])
    own = torch.tensor([[True, True, False, False], [False, False, True, False]])
    found = sampled_softmax(torch.tensor([2.0, 1.0, 1.0]), score, own, torch.tensor([0, 0, 1]))
    first = [torch.cat([score[0, n : n + 1], score[0, 2:]]) for n in (0, 1)]
    losses = [-torch.log_softmax(row, dim=0)[0] for row in first]
    losses.append(-torch.log_softmax(score[1], dim=0)[2])
    weight = torch.tensor([2.0, 2.0, 1.0]).rsqrt()
    torch.testing.assert_close(found, (torch.stack(losses) * weight).sum() / weight.sum())


def test_one_by_one_a_positive_weighs_as_much_as_all_that_are_its_negatives():
    score = torch.tensor([[9.0, 1.0, -1.0], [0.5, 9.0, 3.0]])
    own = torch.eye(2, 3, dtype=torch.bool)
    found = binary_cross_entropy(torch.tensor([2.0, -1.0]), score, own, torch.arange(2))

    def entropy(*score: float, label: float) -> torch.Tensor:
        targets = torch.full((len(score),), label)
        return nn.functional.binary_cross_entropy_with_logits(torch.tensor(score), targets)

    first = entropy(2.0, label=1.0) + entropy(1.0, -1.0, label=0.0)
    second = entropy(-1.0, label=1.0) + entropy(0.5, 3.0, label=0.0)
    torch.testing.assert_close(found, (first + second) / 2)


@pytest.mark.parametrize("history", sorted(USER_TOWERS))
def test_every_user_tower_reads_a_history_wherever_its_padding_ends(history):
    torch.manual_seed(0)
    schema = FeatureSchema()
    model = TwoTower(schema, dropout=0.0, id_dropout=0.0, history=history).eval()
    users = encode_users(schema, {}, History.empty(1), now_s=0.0)
    inputs = {name: torch.from_numpy(users[name]) for name in USER_INPUTS}
    inputs["history_vectors"][:, -3:] = torch.randn(3, 64)
    inputs["history_mask"][:, -3:] = 1.0
    cut = {n: v[:, -5:] if n.startswith("history") else v for n, v in inputs.items()}
    torch.testing.assert_close(model.users(**inputs), model.users(**cut))
    others = inputs["history_vectors"].clone()
    others[:, -2] *= -1
    assert not torch.allclose(
        model.users(**inputs), model.users(**inputs | {"history_vectors": others})
    )


@pytest.mark.parametrize("history", sorted(USER_TOWERS))
def test_with_a_temperature_readers_are_directions_also_without_history(history):
    schema = FeatureSchema()
    model = TwoTower(schema, dropout=0.0, id_dropout=0.0, history=history, temperature=0.1).eval()
    users = encode_users(schema, {}, History.empty(2), now_s=0.0)
    vectors = model.users(**{name: torch.from_numpy(users[name]) for name in USER_INPUTS})
    torch.testing.assert_close(vectors[:, :-1].norm(dim=1), torch.ones(2))
    torch.testing.assert_close(vectors[:, -1], torch.ones(2))


@pytest.mark.parametrize("history", sorted(USER_TOWERS))
def test_what_everybody_likes_is_added_to_dot_products_too(history):
    schema = FeatureSchema()
    model = TwoTower(schema, dropout=0.0, id_dropout=0.0, history=history).eval()
    users = encode_users(schema, {}, History.empty(2), now_s=0.0)
    vectors = model.users(**{name: torch.from_numpy(users[name]) for name in USER_INPUTS})
    torch.testing.assert_close(vectors[:, -1], torch.ones(2))


@pytest.mark.parametrize("temperature", [0.0, 0.1])
def test_no_id_begins_as_liked_by_everybody(temperature):
    model = TwoTower(FeatureSchema(), dropout=0.0, id_dropout=0.0, temperature=temperature)
    assert not model.items.ids.weight[:, -1].any()
    assert model.items.ids.weight[:, :-1].any()


def test_the_id_of_an_untrained_item_says_nothing():
    torch.manual_seed(0)
    schema = FeatureSchema()
    model = TwoTower(schema, dropout=0.0, id_dropout=0.0).eval()
    columns = {"item_id": ["a", "b"]}
    for trained, same in ((np.array([False, False]), True), (np.array([True, True]), False)):
        inputs = encode_items(schema, columns, trained=trained)
        first, second = model.items(**{k: torch.from_numpy(v) for k, v in inputs.items()})
        assert torch.allclose(first, second, atol=1e-6) is same


@pytest.mark.parametrize("tags", [["a"], ["a", "b"]])
def test_with_kin_items_of_the_same_tags_are_alike_before_they_are_learned(tags):
    torch.manual_seed(0)
    schema = FeatureSchema()
    model = TwoTower(schema, dropout=0.0, id_dropout=0.0, kin=True).eval()
    columns = {"item_id": ["x", "y", "z"], "tags": [tags, tags[::-1], ["c"]]}
    inputs = encode_items(schema, columns, trained=np.zeros(3, bool))
    inputs = {name: torch.from_numpy(values) for name, values in inputs.items()}
    first, second, other = model.items(**inputs)
    torch.testing.assert_close(first, second)
    assert first @ second > first @ other


@pytest.mark.parametrize("history", ["attention", "sequence"])
def test_an_untrained_tower_ranks_first_what_is_like_the_newest_half_of_a_history(history):
    torch.manual_seed(0)
    schema = FeatureSchema()
    model = TwoTower(schema, dropout=0.0, id_dropout=0.0, history=history).eval()
    earlier, later, neither = torch.linalg.qr(torch.randn(EMBEDDING_DIM, 3)).Q.T
    read = History.empty(1)
    read.vectors[0, :20], read.vectors[0, 20:40] = earlier, later
    read.mask[0, :40] = True
    inputs = encode_users(schema, {"user_id": ["u"]}, read, now_s=0.0)
    user = model.users(**{name: torch.from_numpy(value) for name, value in inputs.items()})[0]
    assert user @ later > user @ earlier > user @ neither


def test_a_score_by_cosine_adds_how_much_everybody_likes_the_item():
    torch.manual_seed(0)
    item, reader = 7 * torch.randn(3, EMBEDDING_DIM), torch.randn(3, EMBEDDING_DIM)
    score = (as_item(item, cosine=True) * as_reader(reader, cosine=True)).sum(dim=1)
    cosine = torch.nn.functional.cosine_similarity(item[:, :-1], reader[:, :-1])
    torch.testing.assert_close(score, cosine + item[:, -1])


@pytest.mark.parametrize("absent", [("image_vector",), ("text_vector", "image_vector")])
def test_vectors_that_no_item_has_may_be_left_out(absent):
    torch.manual_seed(0)
    schema = FeatureSchema()
    model = TwoTower(schema, dropout=0.0, id_dropout=0.0).eval()
    columns = {"item_id": ["a", "b"], "text_vector": np.ones((2, 64))}
    if "text_vector" in absent:
        columns.pop("text_vector")
    inputs = {k: torch.from_numpy(v) for k, v in encode_items(schema, columns).items()}
    without = {k: v[:, :0] if k in absent else v for k, v in inputs.items()}
    torch.testing.assert_close(model.items(**without), model.items(**inputs))


def test_what_all_items_have_in_common_is_taken_off_in_training_and_in_serving():
    centred = Centred(4)
    content = torch.randn(64, 4) + 5.0
    for _ in range(3):
        found = centred(content)
    torch.testing.assert_close(found.mean(dim=0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(centred.eval()(content), found)
