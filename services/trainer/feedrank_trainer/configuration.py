"""What a training run may turn."""

from __future__ import annotations

import math
from dataclasses import dataclass

from feedrank_core.models.two_tower import LOSSES, USER_TOWERS

SHARES = ("dropout", "id_dropout", "history_dropout", "averaging")
COUNTS = ("epochs", "batch_size", "num_blocks", "pool", "patience", "max_steps")
AMOUNTS = (
    "learning_rate", "last_learning_rate", "weight_decay", "temperature", "num_uniform", "against",
)  # fmt: skip


@dataclass(frozen=True)
class TrainingConfig:
    """First choices where docs/measurements.md has no ablation.

    `id_dropout` and `kin` are of `ItemTower` (the size of the first is of decision 18). `in_batch`
    makes the positives of a batch each other's negatives, and with `log_q` scores are corrected for
    how often each is drawn. Without `in_batch` a positive stands `against` so many items, however
    many are drawn; 0 means all. `loss` is a name of LOSSES, `history` of USER_TOWERS, of which the
    sequence tower has `num_blocks`; a `temperature` of 0 means dot products of a learned scale.
    `last_learning_rate` is the share of it left after all epochs, a straight line from the first.
    What is measured and kept are the weights, or with `averaging` a running mean of theirs over
    epochs, of which each epoch keeps this share. Of `pool` batches each takes histories of like
    length. A batch is of `batch_size` examples; where the tower can be asked at places of a
    history, of whole histories that hold as many, each read once.

    Raises: ValueError where a name is unknown, a number is out of range, or the tower cannot do
    what is asked.
    """

    epochs: int = 8
    batch_size: int = 512
    num_uniform: int = 512
    learning_rate: float = 3e-3
    weight_decay: float = 1e-5
    dropout: float = 0.2
    id_dropout: float = 0.3
    history_dropout: float = 0.1
    history: str = "attention"
    num_blocks: int = 2
    temperature: float = 0.0
    loss: str = "softmax"
    log_q: bool = True
    in_batch: bool = True
    against: int = 0
    kin: bool = False
    last_learning_rate: float = 1.0
    averaging: float = 0.0
    pool: int = 1
    patience: int = 2
    max_steps: int = 100_000

    def __post_init__(self) -> None:
        for field, known in (("loss", LOSSES), ("history", USER_TOWERS)):
            if (name := getattr(self, field)) not in known:
                raise ValueError(f"{field} must be one of {', '.join(known)}, not {name!r}")
        if self.history == "sequence" and self.history_dropout:
            raise ValueError("history='sequence' needs history_dropout=0: actions read each other")
        if self.against and self.in_batch:
            raise ValueError("against needs in_batch=False: positives of a batch are no sample")
        self._require_ranges()
        if not self.num_uniform and not self.in_batch:
            raise ValueError(
                "num_uniform must be 1 at least where in_batch=False: nothing is drawn"
            )

    def _require_ranges(self) -> None:
        for field in SHARES:
            if not 0 <= (share := getattr(self, field)) < 1:
                raise ValueError(f"{field} must be at least 0 and below 1, not {share}")
        for field in COUNTS:
            if (count := getattr(self, field)) < 1:
                raise ValueError(f"{field} must be 1 at least, not {count}")
        for field in AMOUNTS:
            if not 0 <= (amount := getattr(self, field)) < math.inf:
                raise ValueError(f"{field} must be a number of 0 at least, not {amount}")

    @property
    def asks_places(self) -> bool:
        """Whether the tower answers at every place of a history that it reads once."""
        return hasattr(USER_TOWERS[self.history], "at")
