"""Which weights of a training are measured, and which are kept in the end."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from feedrank_core.models.two_tower import TwoTower

from feedrank_trainer.checkpoint import State


@dataclass
class Best:
    """The weights of the best score so far, and how many epochs came since."""

    score: float = -math.inf
    state: dict[str, torch.Tensor] | None = None
    num_waited: int = 0

    def consider(self, score: float, model: TwoTower) -> None:
        """Keep these weights where they are better."""
        self.num_waited += 1
        if score > self.score:
            self.score, self.state, self.num_waited = score, snapshot(model), 0


def snapshot(model: TwoTower) -> dict[str, torch.Tensor]:
    """A copy of the weights."""
    return {name: value.clone() for name, value in model.state_dict().items()}


class RunningMean:
    """The mean of a training's weights after its latest epochs, or the weights themselves.

    Each epoch keeps the share `kept` of the mean before it, and less while it is young: the first
    ones weigh alike. With 0 the mean is the trained model itself and costs nothing.
    Source: Polyak and Juditsky 1992; after epochs as in SWA (Izmailov et al. 2018).
    """

    def __init__(self, trained: TwoTower, kept: float) -> None:
        self.model = copy.deepcopy(trained) if kept else trained
        self._trained, self._kept, self._num_epochs = trained, kept, 0

    @torch.no_grad()
    def add(self) -> None:
        """Take in the weights as they are now."""
        self._num_epochs += 1
        if not self._kept:
            return
        new = max(1 / self._num_epochs, 1 - self._kept)
        trained = self._trained.state_dict()
        for name, mean in self.model.state_dict().items():
            mean.lerp_(trained[name], new)

    def state(self) -> State:
        """What another one needs to go on from here."""
        weights = self.model.state_dict() if self._kept else None
        return {"num_epochs": self._num_epochs, "weights": weights}

    def load(self, state: State) -> None:
        """Go on from a state."""
        self._num_epochs = state["num_epochs"]
        if self._kept:
            self.model.load_state_dict(state["weights"])
