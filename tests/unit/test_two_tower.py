import numpy as np
import torch
from feedrank_core.features.encoding import FeatureSchema, encode_items
from feedrank_core.models.two_tower import Batch, TwoTower, known_positives, sampled_softmax
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


def test_the_correction_makes_the_loss_blind_to_how_often_a_column_was_drawn():
    score = torch.tensor([[1.0, 2.0], [0.5, 1.5]])
    own, row = torch.eye(2, dtype=torch.bool), torch.arange(2)
    plain = sampled_softmax(score, own, torch.zeros(2), row)
    shift = torch.tensor([3.0, -1.0])
    torch.testing.assert_close(plain, sampled_softmax(score + shift, own, shift, row))


def test_with_one_positive_a_row_the_loss_is_the_cross_entropy_of_its_column():
    score = torch.tensor([[1.0, 2.0, -1.0], [0.5, 1.5, 3.0]])
    own = torch.eye(2, 3, dtype=torch.bool)
    found = sampled_softmax(score, own, torch.zeros(3), torch.arange(2))
    torch.testing.assert_close(found, nn.functional.cross_entropy(score, torch.arange(2)))


def test_the_positives_of_one_row_do_not_compete_and_weigh_the_root_of_their_number():
    score = torch.tensor([[2.0, 1.0, 0.5, 0.0], [0.0, 0.0, 1.0, 0.5]])
    own = torch.tensor([[True, True, False, False], [False, False, True, False]])
    found = sampled_softmax(score, own, torch.zeros(4), torch.tensor([0, 0, 1]))
    first = [torch.cat([score[0, n : n + 1], score[0, 2:]]) for n in (0, 1)]
    losses = [-torch.log_softmax(row, dim=0)[0] for row in first]
    losses.append(-torch.log_softmax(score[1], dim=0)[2])
    weight = torch.tensor([2.0, 2.0, 1.0]).rsqrt()
    torch.testing.assert_close(found, (torch.stack(losses) * weight).sum() / weight.sum())


def test_the_id_of_an_untrained_item_says_nothing():
    torch.manual_seed(0)
    schema = FeatureSchema()
    model = TwoTower(schema, dropout=0.0, id_dropout=0.0).eval()
    columns = {"item_id": ["a", "b"]}
    for trained, same in ((np.array([False, False]), True), (np.array([True, True]), False)):
        inputs = encode_items(schema, columns, trained=trained)
        first, second = model.items(**{k: torch.from_numpy(v) for k, v in inputs.items()})
        assert torch.allclose(first, second, atol=1e-6) is same
