import numpy as np
import torch
from feedrank_core.contracts.bundle import EMBEDDING_DIM
from feedrank_core.features.encoding import FeatureSchema, History, encode_items, encode_users
from feedrank_core.models.two_tower import Batch, TwoTower, known_positives, sampled_softmax


def batch(history: list[list[int]], positive: list[int], negative: list[int], user: list[int]):
    mask = torch.tensor([[float(i >= 0) for i in row] for row in history])
    return Batch(
        item_inputs={},
        user_inputs={"history_mask": mask},
        history=torch.tensor(history).clamp(min=0),
        positive=torch.tensor(positive),
        negative=torch.tensor(negative),
        log_q=torch.zeros(6),
        user=torch.tensor(user),
    )


def test_accidental_hits_history_and_a_readers_other_positives_are_no_negatives():
    work = batch([[4, -1], [-1, -1], [-1, -1]], [0, 1, 2], [0, 4, 5], [7, 7, 8])
    hidden = known_positives(work, torch.tensor([0, 1, 2, 0, 4, 5]), 6)
    assert hidden.int().tolist() == [
        [0, 1, 0, 1, 1, 0],
        [1, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ]


def test_the_correction_makes_the_loss_blind_to_how_often_a_column_was_drawn():
    score = torch.tensor([[1.0, 2.0], [0.5, 1.5]])
    none = torch.zeros(2, 2, dtype=torch.bool)
    plain = sampled_softmax(score, none, torch.zeros(2))
    shifted = sampled_softmax(score + torch.tensor([3.0, -1.0]), none, torch.tensor([3.0, -1.0]))
    torch.testing.assert_close(plain, shifted)


def test_the_id_of_an_untrained_item_says_nothing():
    torch.manual_seed(0)
    schema = FeatureSchema()
    model = TwoTower(schema, dropout=0.0, id_dropout=0.0).eval()
    columns = {"item_id": ["a", "b"]}
    for trained, same in ((np.array([False, False]), True), (np.array([True, True]), False)):
        inputs = encode_items(schema, columns, trained=trained)
        first, second = model.items(**{k: torch.from_numpy(v) for k, v in inputs.items()})
        assert torch.allclose(first, second, atol=1e-6) is same


def test_an_untrained_tower_ranks_first_what_is_like_the_newest_half_of_a_history():
    torch.manual_seed(0)
    schema = FeatureSchema()
    model = TwoTower(schema, dropout=0.0, id_dropout=0.0).eval()
    earlier, later, neither = torch.nn.functional.normalize(torch.randn(3, EMBEDDING_DIM), dim=1)
    history = History.empty(1)
    history.vectors[0, :20], history.vectors[0, 20:40] = earlier, later
    history.mask[0, :40] = True
    inputs = encode_users(schema, {"user_id": ["u"]}, history, now_s=0.0)
    user = model.users(**{name: torch.from_numpy(value) for name, value in inputs.items()})[0]
    assert user @ later > user @ earlier > user @ neither
