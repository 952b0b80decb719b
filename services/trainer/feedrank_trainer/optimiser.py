"""Steps that touch only what a batch touched: rows of big tables, and all of the small layers.

R rows of a table with a gradient, D its width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from feedrank_trainer.ranks import Ranks

MAX_GRADIENT = 5.0
"""Longest gradient of a step: one strange batch must not throw away what was learned."""
BETA = 0.999
EPSILON = 1e-8
"""Both as in AdamW."""
LONGEST_MEAN = 100
"""Steps that a column's share is the mean of."""


class RowWiseAdam:
    """Adam without momentum, for sparse gradients: a second moment a row, shared out to columns.

    It gives what a pass over the whole table would: a row without a gradient stays where it is,
    and its second moment fades with every step, made up for when the row is next met. Only weight
    decay leaves out rows that are not met again. Beside the table it holds two numbers a row, and
    one a column: how large the squares of its gradients are beside all columns'.
    Source: Kingma and Ba 2015; rows and columns apart as in Adafactor (Shazeer and Stern 2018).
    """

    def __init__(self, table: Tensor, *, weight_decay: float) -> None:
        self.table, self.weight_decay = table, weight_decay
        self.num_steps = 0
        self.moment = torch.zeros(len(table), device=table.device)
        self.met = torch.zeros(len(table), dtype=torch.int32, device=table.device)
        self.column = torch.ones(table.shape[1], device=table.device)

    @torch.no_grad()
    def step(self, grad: Tensor, rate: float) -> None:
        """Move the rows of a coalesced gradient."""
        self.num_steps += 1
        row_R, grad_RD = grad.indices()[0], grad.values()
        missed_R = (self.num_steps - self.met[row_R]).to(grad_RD.dtype)
        square_RD = grad_RD.square()
        moment_R = self.moment[row_R] * BETA**missed_R
        moment_R += (1 - BETA) * square_RD.mean(dim=1)
        self.share_out(square_RD)
        mean_RD = (moment_R / (1 - BETA**self.num_steps)).unsqueeze(1) * self.column
        kept_R = (1 - rate * self.weight_decay) ** missed_R
        row_RD = self.table[row_R] * kept_R.unsqueeze(1)
        row_RD -= rate / (mean_RD.sqrt() + EPSILON) * grad_RD
        self.table[row_R], self.moment[row_R], self.met[row_R] = row_RD, moment_R, self.num_steps

    def share_out(self, square_RD: Tensor) -> None:
        """Note how large each column's squares are, as a mean over the last steps."""
        whole = square_RD.mean()
        if whole > 0:
            part = square_RD.mean(dim=0) / whole - self.column
            self.column += part / min(self.num_steps, LONGEST_MEAN)

    def state(self) -> dict[str, Any]:
        """What another one needs to go on from here."""
        kept = {"moment": self.moment, "met": self.met, "column": self.column}
        return {"num_steps": self.num_steps, **kept}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.num_steps = state["num_steps"]
        for name in ("moment", "met", "column"):
            getattr(self, name).copy_(state[name])


@dataclass
class Optimiser:
    """RowWiseAdam for the sparse tables of a model and AdamW for the rest, at one learning rate."""

    model: nn.Module
    rate: float
    weight_decay: float
    ranks: Ranks = Ranks()  # noqa: RUF009 - frozen
    tables: list[RowWiseAdam] = field(init=False)
    layers: list[Tensor] = field(init=False)
    adam: torch.optim.AdamW = field(init=False)

    def __post_init__(self) -> None:
        decay = self.weight_decay
        tables = {id(table): table for table in sparse_tables(self.model)}
        learned = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.layers = [parameter for parameter in learned if id(parameter) not in tables]
        self.tables = [RowWiseAdam(table, weight_decay=decay) for table in tables.values()]
        # Fused: one pass over the layers instead of one for each step of the formula.
        self.adam = torch.optim.AdamW(self.layers, lr=self.rate, weight_decay=decay, fused=True)

    def set_rate(self, rate: float) -> None:
        """The learning rate from now on."""
        self.rate = rate
        for group in self.adam.param_groups:
            group["lr"] = rate

    def step(self) -> None:
        """Move along the gradients, cut to MAX_GRADIENT together, and forget them."""
        parameters = [*(one.table for one in self.tables), *self.layers]
        grads = self.ranks.average([_grad_of(parameter) for parameter in parameters])
        values = [grad.values() if grad.is_sparse else grad for grad in grads]
        share = MAX_GRADIENT / (torch.nn.utils.get_total_norm(values) + 1e-6)
        for part in values:
            part.mul_(share.clamp(max=1.0))
        for one, grad in zip(self.tables, grads, strict=False):
            one.step(grad, self.rate)
        for layer, grad in zip(self.layers, grads[len(self.tables) :], strict=True):
            layer.grad = grad
        self.adam.step()
        for parameter in parameters:
            parameter.grad = None

    def state(self) -> dict[str, Any]:
        """What another one needs to go on from here."""
        return {"tables": [one.state() for one in self.tables], "layers": self.adam.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.adam.load_state_dict(state["layers"])
        for one, of_one in zip(self.tables, state["tables"], strict=True):
            one.load(of_one)


def sparse_tables(model: nn.Module) -> list[Tensor]:
    """The tables whose gradients hold the rows of a batch alone."""
    tables = (module for module in model.modules() if isinstance(module, nn.Embedding))
    return [table.weight for table in tables if table.sparse]


def _grad_of(parameter: Tensor) -> Tensor:
    """Its gradient, coalesced where it is sparse; of zeros where a batch did not use it."""
    grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    return grad.coalesce() if grad.is_sparse else grad
