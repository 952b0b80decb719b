"""What a training run may turn."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingConfig:
    """First choices where docs/measurements.md has no ablation.

    `id_dropout` and `kin` are of `ItemTower` (the size of the first is of decision 18). `in_batch`
    makes the positives of a batch each other's negatives. `history` is a name of USER_TOWERS, of
    which the sequence tower has `num_blocks`; a `temperature` of 0 means dot products of a learned
    scale. Without positives of the batch each stands `against` so many items, however many are
    drawn; 0 means all. `last_learning_rate` is the share of it left after all epochs, a straight
    line from the first. What is measured and kept are the weights, or with `averaging` a running
    mean of theirs over epochs, of which each epoch keeps this share. Of `pool` batches each takes
    histories of like length. With `all_places` a batch is of `batch_size` histories, each asked
    wherever a positive lies in it; else of so many examples.

    Raises: ValueError where the tower cannot do what is asked, or a share is none.
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
    in_batch: bool = True
    against: int = 0
    kin: bool = False
    all_places: bool = False
    last_learning_rate: float = 1.0
    averaging: float = 0.0
    pool: int = 1
    patience: int = 2
    max_steps: int = 100_000

    def __post_init__(self) -> None:
        if self.all_places and (self.history != "sequence" or self.history_dropout):
            raise ValueError("all_places needs history='sequence' and history_dropout=0")
        if self.against and self.in_batch:
            raise ValueError("against needs in_batch=False: positives of a batch are no sample")
        if not 0 <= self.averaging < 1:
            raise ValueError(f"averaging must be at least 0 and below 1, not {self.averaging}")
