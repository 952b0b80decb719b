"""An interrupted training ends in the weights of one that ran through, or says why it cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from feedrank_core.features.encoding import FeatureSchema, encode_items
from feedrank_core.models.two_tower import TwoTower
from feedrank_trainer.checkpoint import Checkpoint, CheckpointError
from feedrank_trainer.configuration import TrainingConfig
from feedrank_trainer.examples import InMemory, Log, examples_of
from feedrank_trainer.progress import line
from feedrank_trainer.training import DeviceError, Epoch, fit

NUM_ITEMS, SEED = 40, 11
CONFIG = TrainingConfig(epochs=4, batch_size=32, num_uniform=16, patience=2)
COLUMNS = {"item_id": [f"item-{n}" for n in range(NUM_ITEMS)]}


class Killed(Exception):  # noqa: N818 - no error of the program
    """Ends a training from within."""


def source() -> InMemory:
    rng = np.random.default_rng(3)
    user = np.sort(rng.integers(0, 20, 300))
    item, at_s = rng.integers(0, NUM_ITEMS, len(user)), np.arange(len(user), dtype=float)
    everywhere = np.ones(len(user), bool)
    return InMemory(examples_of(Log(user, item, np.full(len(user), 2), at_s, everywhere)))


def trained(
    checkpoint: Checkpoint | None,
    *,
    scores: tuple[float, ...] = (),
    report: Callable[[Epoch], None] = lambda epoch: None,
    seed: int = SEED,
    **changes: float,
) -> dict[str, torch.Tensor]:
    """The weights; `scores` are what the later slice would say of each epoch."""
    schema, number = FeatureSchema.fit(COLUMNS, {}), 0

    def note(epoch: Epoch) -> None:
        nonlocal number
        number = epoch.number
        report(epoch)

    def validate(model: TwoTower) -> float:
        return scores[number]

    model = fit(
        source(),
        encode_items(schema, COLUMNS),
        schema,
        config=replace(CONFIG, **changes),
        seed=seed,
        validate=validate if scores else None,
        report=note,
        checkpoint=checkpoint,
    )
    return model.state_dict()


def killed_after(number: int) -> Callable[[Epoch], None]:
    def report(epoch: Epoch) -> None:
        if epoch.number == number:
            raise Killed

    return report


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return Checkpoint(tmp_path / "training.checkpoint", {"examples": "those"})


@pytest.mark.parametrize("scores", [(), (0.3, 0.1, 0.2, 0.9), (0.1, 0.2, 0.3, 0.4)])
@pytest.mark.parametrize(("number", "averaging"), [(1, 0.0), (2, 0.0), (3, 0.0), (2, 0.9)])
def test_a_training_goes_on_to_the_weights_of_one_that_ran_through(
    checkpoint, scores, number, averaging
):
    through: list[Epoch] = []
    whole = trained(None, scores=scores, report=through.append, averaging=averaging)
    with pytest.raises(Killed):
        trained(checkpoint, scores=scores, report=killed_after(number), averaging=averaging)
    after: list[Epoch] = []
    resumed = trained(checkpoint, scores=scores, report=after.append, averaging=averaging)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert after[0].is_resumed and after[0].number == number
    assert [(e.number, e.steps, e.loss, e.score) for e in after[1:]] == [
        (e.number, e.steps, e.loss, e.score) for e in through[number:]
    ]
    assert line(after[0]).startswith(f"resumed after epoch {number} ")


def test_a_training_that_is_over_runs_no_epoch_again(checkpoint):
    whole, after = trained(checkpoint), []
    again = trained(checkpoint, report=after.append)
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert [epoch.is_resumed for epoch in after] == [True]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"learning_rate": 0.5}, r"learning_rate 0\.003, and this is learning_rate 0\.5"),
        ({"epochs": 9}, "epochs 4, and this is epochs 9"),
        ({"seed": 12}, "seed 11, and this is seed 12"),
    ],
)
def test_a_checkpoint_of_another_configuration_is_refused(checkpoint, change, said):
    trained(checkpoint, epochs=CONFIG.epochs)
    with pytest.raises(CheckpointError, match=rf"was made with {said}: set it back, or delete"):
        trained(checkpoint, **change)


def test_a_checkpoint_of_other_data_is_refused(checkpoint):
    trained(checkpoint)
    other = replace(checkpoint, made_for={"examples": "these"})
    with pytest.raises(CheckpointError, match="examples 'those', and this is examples 'these'"):
        trained(other)


def test_a_checkpoint_of_an_older_release_is_refused_where_states_have_changed(
    checkpoint, monkeypatch
):
    with monkeypatch.context() as older:
        older.setattr("feedrank_trainer.checkpoint.FORMAT", 1)
        trained(checkpoint)
    with pytest.raises(CheckpointError, match=r"format 1, and this is format \d+: .*or delete"):
        trained(checkpoint)


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_damaged_checkpoint_is_named_with_the_remedy(checkpoint, kept):
    trained(checkpoint, epochs=1)
    whole = checkpoint.path.read_bytes()
    checkpoint.path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(CheckpointError, match=r"training\.checkpoint cannot be read: delete"):
        trained(checkpoint, epochs=1)


def test_a_crash_while_a_checkpoint_is_written_leaves_the_one_before(checkpoint, monkeypatch):
    with pytest.raises(Killed):
        trained(checkpoint, report=killed_after(1))
    before = checkpoint.path.read_bytes()

    def torn(content: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr("feedrank_trainer.checkpoint.torch.save", torn)
    with pytest.raises(OSError, match="no space"):
        trained(checkpoint)
    assert checkpoint.path.read_bytes() == before
    assert [path.name for path in checkpoint.path.parent.iterdir()] == [checkpoint.path.name]


def test_what_a_killed_writer_left_goes_with_the_next_checkpoint(checkpoint):
    left = checkpoint.path.with_name(f".{checkpoint.path.name}.0123abcd.unfinished")
    left.write_bytes(b"gigabytes")
    trained(checkpoint)
    assert [path.name for path in checkpoint.path.parent.iterdir()] == [checkpoint.path.name]


def test_a_training_that_begins_where_another_ended_goes_on_only_after_that_one(checkpoint):
    trained(checkpoint.after({"epochs": 6}))
    with pytest.raises(CheckpointError, match=r"an earlier training's epochs 6.*epochs 8"):
        trained(checkpoint.after({"epochs": 8}))


def test_a_device_that_is_not_there_is_an_error_that_names_it():
    schema = FeatureSchema()
    with pytest.raises(DeviceError, match="no device 'cuda:77' here"):
        fit(
            source(),
            encode_items(schema, COLUMNS),
            schema,
            config=CONFIG,
            seed=1,
            device="cuda:77",
        )
