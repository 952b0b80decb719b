"""Processes that train one model together: each reads its own shards, all take the same steps."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")
PATIENCE = timedelta(hours=2)
"""The others wait so long for the first, which alone measures the later slice."""


@dataclass(frozen=True)
class Ranks:
    """This process among all, as torchrun numbers them. Alone, it neither waits nor sends."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that measures and writes."""
        return self.rank == 0

    def share(self, parts: Sequence[T]) -> tuple[T, ...]:
        """What this process reads."""
        return tuple(parts[self.rank :: self.size])

    def together(self, steps: Iterator[T]) -> Iterator[T]:
        """Steps for as long as every process has one."""
        for step in steps:
            if not self._all(True):
                return
            yield step
        self._all(False)

    def _all(self, is_so: bool) -> bool:
        if self.size == 1:
            return is_so
        answer = torch.tensor(int(is_so))
        dist.all_reduce(answer, dist.ReduceOp.MIN)
        return bool(answer)

    def average(self, grads: Sequence[Tensor]) -> list[Tensor]:
        """The means of gradients over the processes, dense or of some rows."""
        if self.size == 1 or not grads:
            return list(grads)
        dense = [grad for grad in grads if not grad.is_sparse]
        flat = torch.cat([grad.flatten() for grad in dense]) / self.size
        dist.all_reduce(flat)
        parts = iter(flat.split([grad.numel() for grad in dense]))
        return [
            self._average_rows(grad) if grad.is_sparse else next(parts).view_as(grad)
            for grad in grads
        ]

    def _average_rows(self, grad: Tensor) -> Tensor:
        grad = (grad / self.size).coalesce()
        dist.all_reduce(grad)
        return grad.coalesce()

    def sum(self, values: np.ndarray) -> np.ndarray:
        """The sum over the processes."""
        if self.size == 1:
            return values
        total = torch.from_numpy(values.copy())
        dist.all_reduce(total)
        return total.numpy()

    def gather(self, value: T) -> list[T]:
        """What each process says, by rank."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def told(self, answer: Callable[[], T]) -> T:
        """What the first process answers; the others do not ask."""
        if self.size == 1:
            return answer()
        told: list[Any] = [answer() if self.is_first else None]
        dist.broadcast_object_list(told, src=0)
        return told[0]


@contextmanager
def joined() -> Iterator[Ranks]:
    """This process among those that torchrun has started; alone where it has started none."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield Ranks()
        return
    dist.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
