"""A step on the rows of a batch gives what a pass over the whole table would."""

from copy import deepcopy

import pytest
import torch
from feedrank_core.features.encoding import FeatureSchema
from feedrank_core.models.two_tower import TwoTower
from feedrank_trainer.optimiser import (
    BETA,
    EPSILON,
    LONGEST_MEAN,
    MAX_GRADIENT,
    Optimiser,
    RowWiseAdam,
    sparse_tables,
)
from torch import nn

NUM_ROWS, DIM, RATE = 12, 4, 0.01


def table(**options) -> nn.Embedding:
    torch.manual_seed(2)
    return nn.Embedding(NUM_ROWS, DIM, sparse=True, **options)


def gradient(embedding: nn.Embedding, bag: list[list[int]]) -> torch.Tensor:
    """Of bags of rows: a row may be met twice, within a bag and in several."""
    embedding.weight.grad = None
    summed = embedding(torch.tensor(bag)).sum(dim=1)
    (summed * torch.randn(summed.shape)).sum().backward()
    assert embedding.weight.grad is not None
    return embedding.weight.grad.coalesce()


def test_rows_go_where_a_pass_over_the_whole_table_would_take_them():
    embedding = table()
    sparse = RowWiseAdam(embedding.weight, weight_decay=0.0)
    weight_ND, moment_N = embedding.weight.detach().clone(), torch.zeros(NUM_ROWS)
    column_D = torch.ones(DIM)
    for step in range(1, LONGEST_MEAN + 30):
        often, seldom = [step % 3, 1], [5, 5] if step % 20 == 0 else [2, 2]
        grad = gradient(embedding, [often, seldom, [0, 7 + step % 5]])
        sparse.step(grad, RATE)
        grad_ND = grad.to_dense()
        moment_N = BETA * moment_N + (1 - BETA) * grad_ND.square().mean(dim=1)
        share_D = grad_ND.square().sum(dim=0) / grad_ND.square().sum() * DIM
        column_D += (share_D - column_D) / min(step, LONGEST_MEAN)
        length_ND = (moment_N.unsqueeze(1) * column_D / (1 - BETA**step)).sqrt() + EPSILON
        weight_ND -= RATE * grad_ND / length_ND
    torch.testing.assert_close(embedding.weight.detach(), weight_ND)


def test_weight_decay_is_made_up_for_when_a_row_is_met():
    embedding = table()
    sparse = RowWiseAdam(embedding.weight, weight_decay=0.5)
    before = embedding.weight.detach().clone()
    none, other = ((0.0 * gradient(embedding, [[row]])).coalesce() for row in (3, 4))
    for grad in (other, other, none):
        sparse.step(grad, RATE)
    torch.testing.assert_close(embedding.weight[3], before[3] * (1 - RATE * 0.5) ** 3)
    torch.testing.assert_close(embedding.weight[5], before[5])


def test_padding_stays_where_it_is():
    embedding = table(padding_idx=0)
    before = embedding.weight[0].detach().clone()
    RowWiseAdam(embedding.weight, weight_decay=0.5).step(gradient(embedding, [[0, 1]]), RATE)
    assert torch.equal(embedding.weight[0], before)


class Small(nn.Module):
    """A sparse table and a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = table()
        self.layer = nn.Linear(DIM, 1)

    def forward(self, ids: list[int]) -> torch.Tensor:
        return self.layer(self.rows(torch.tensor(ids))).sum()


def test_a_gradient_is_cut_over_tables_and_layers_together(monkeypatch):
    model = Small()
    (1e3 * model([1, 1, 4])).backward()
    found = [p.grad.to_dense().flatten() for p in model.parameters() if p.grad is not None]
    whole = torch.cat(found).norm()
    optimiser, cut = Optimiser(model, 3e-3, 1e-5), []
    monkeypatch.setattr(optimiser.tables[0], "step", lambda grad, rate: cut.append(grad))
    assert model.rows.weight.grad is not None
    before = model.rows.weight.grad.coalesce().values().clone()
    optimiser.step()
    torch.testing.assert_close(cut[0].values(), before * MAX_GRADIENT / whole)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_one_goes_on_from_the_state_of_another():
    first, second = Small(), Small()
    one, other = (Optimiser(model, 3e-3, 1e-5) for model in (first, second))
    for ids in ([1, 2], [2, 3]):
        first(ids).backward()
        one.step()
    second.load_state_dict(first.state_dict())
    other.load(deepcopy(one.state()))
    for model, optimiser in ((first, one), (second, other)):
        model([2, 5]).backward()
        optimiser.step()
    assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))


@pytest.mark.parametrize("name", ["items.ids", "items.creators"])
def test_tables_that_grow_with_the_catalogue_have_sparse_gradients(name):
    model = TwoTower(FeatureSchema(), dropout=0.0, id_dropout=0.0)
    grown = model.get_submodule(name)
    assert any(grown.weight is table for table in sparse_tables(model))
