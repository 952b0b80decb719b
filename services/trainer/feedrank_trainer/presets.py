"""Configurations for shapes of data, by the name that FEEDRANK_TRAINER_PRESET gives.

All train the same two towers and end in the same bundle. A feed tells kinds of actions apart and
has content; baskets are items without order or content; sequences tell what comes next.
"""

from __future__ import annotations

from feedrank_trainer.configuration import TrainingConfig

PRESETS = {
    "feed": TrainingConfig(epochs=6, pool=16),
    "baskets": TrainingConfig(
        epochs=40,
        num_uniform=4096,
        in_batch=False,
        last_learning_rate=0.1,
        weight_decay=0.0,
        dropout=0.0,
        id_dropout=0.0,
        history_dropout=0.0,
        history="bag",
        temperature=0.1,
        averaging=0.8,
        pool=8,
        # Never early: the validation chooses among all epochs.
        patience=40,
    ),
    "sequences": TrainingConfig(
        epochs=28,
        num_uniform=512,
        in_batch=False,
        against=256,
        learning_rate=2e-3,
        last_learning_rate=0.05,
        averaging=0.8,
        weight_decay=0.0,
        dropout=0.5,
        id_dropout=0.0,
        history_dropout=0.0,
        history="sequence",
        num_blocks=1,
        kin=True,
        batch_size=896,
        pool=16,
        patience=8,
    ),
}
