"""The daily run's training on a catalogue of 10M items; the floor is reading its batches alone."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import numpy as np
import torch
from feedrank_core.contracts.bundle import Part
from feedrank_core.models.two_tower import TwoTower
from feedrank_core.runtime.home import Home
from feedrank_trainer.batching import ItemInputs, assemble, steps
from feedrank_trainer.checkpoint import Checkpoint
from feedrank_trainer.configuration import TrainingConfig
from feedrank_trainer.examples import Examples, Shards, select
from feedrank_trainer.onnx_export import export, on_one_thread, user_inputs_of
from feedrank_trainer.presets import PRESETS
from feedrank_trainer.ranks import Ranks
from feedrank_trainer.settings import Settings
from feedrank_trainer.training import Training, make_repeatable, new_model

from feedrank_cli.bench.latency import tell_latency
from feedrank_cli.bench.picture import require_drawing, save
from feedrank_cli.bench.report import Report, require_room
from feedrank_cli.bench.train_data import ACTIONS_EACH, catalogue, write_shards

NAME = "train"
HELP = (
    "Training of 1M readers x 10M items: samples/s, memory, loss (--picture FILE), one reader's ms."
)
PRESET = "feed"
FULL_READERS, FULL_ITEMS = 1_000_000, 10_000_000
QUICK_READERS, QUICK_ITEMS = 20_000, 200_000
SAMPLES = 1_500_000
"""Learned from in the full run: two minutes at the bound."""
FLOOR_SHARE = 0.2
SAMPLES_PER_S_BOUND = 12_000.0
BYTES_PER_EXAMPLE = 250
BYTES_PER_ITEM = 500
"""Of a checkpoint: two buckets of 64 numbers at most."""
CURVE_POINTS = 50
ENCODED = 2000
ENCODE_MS_BOUND = 2.0
"""Of the 15 ms that a feed may take, where a reader's vector is made anew."""


@dataclass
class Limited:
    """A source that ends after so many examples, and counts them."""

    shards: Shards
    most: int
    count: int = 0
    is_ordered: ClassVar[bool] = True

    def pieces(self, rng: np.random.Generator) -> Iterator[Examples]:
        """The first pieces of the shards."""
        for piece in self.shards.pieces(rng):
            some = min(len(piece["user"]), self.most - self.count)
            self.count += some
            yield select(piece, np.arange(some))
            if self.count >= self.most:
                return


def run(
    home: Home,
    *,
    quick: bool,
    seed: int,
    users: int | None = None,
    picture: Path | None = None,
) -> Report:
    """Train on shards by the daily run's configuration; quick: 20k readers, 200k items."""
    if picture is not None:
        require_drawing(picture)
    num_readers = users or (QUICK_READERS if quick else FULL_READERS)
    num_items = QUICK_ITEMS if quick else FULL_ITEMS
    num_bytes = BYTES_PER_EXAMPLE * ACTIONS_EACH * num_readers + BYTES_PER_ITEM * num_items
    require_room(home.root, num_bytes)
    torch.set_num_threads(Settings(home=home.root).threads)
    make_repeatable(seed)
    rng = np.random.default_rng(seed)
    report = Report(NAME, seed)
    with TemporaryDirectory(prefix="bench-train-", dir=home.root) as folder:
        schema, items = catalogue(num_items, rng)
        paths, num_examples = write_shards(Path(folder), num_readers, num_items, rng)
        report.figure("readers", num_readers)
        report.figure("items", num_items)
        report.figure("examples", num_examples)
        report.figure("id_rows", schema.num_id_buckets)
        shards, config = Shards(paths), PRESETS[PRESET]
        began = time.monotonic()
        model = new_model(schema, config)
        training = Training.of(model, shards, items, config, seed=seed, ranks=Ranks())
        report.figure("start_s", time.monotonic() - began)
        most = min(SAMPLES, num_examples)
        floor = batches_per_s(Limited(shards, int(FLOOR_SHARE * most)), items, training.log_q_N)
        report.floor("batches_alone_samples_per_s", floor)
        losses = learn(report, training, Limited(shards, most))
        began = time.monotonic()
        Checkpoint(Path(folder) / "checkpoint", {}).save(training.state(), {})
        report.figure("checkpoint_s", time.monotonic() - began)
        # Linux counts in KiB.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        report.figure("peak_memory_gb", peak)
        tell_encoder(report, training.model.eval(), paths[0])
    report.bound("samples_per_s", ">=", SAMPLES_PER_S_BOUND)
    report.bound("loss_fell_by", ">", 0.0)
    report.bound("encode_one_p99_ms", "<", ENCODE_MS_BOUND)
    if picture is not None:
        draw(picture, losses, int(report.figures["samples"]))
    return report


def batches_per_s(
    source: Limited,
    items: ItemInputs,
    log_q_N: np.ndarray,
    config: TrainingConfig = PRESETS[PRESET],
) -> float:
    """Samples a second of shards that become batches, which no model sees."""
    rng, began = np.random.default_rng(0), time.monotonic()
    for step in steps(source, config, rng):
        assemble(step, items, log_q_N, config=config, rng=rng)
    return source.count / (time.monotonic() - began)


def learn(report: Report, training: Training, source: Limited) -> np.ndarray:
    """One pass over the source; answers the curve of the loss, CURVE_POINTS means at most."""
    training.source = source
    training.config = replace(training.config, max_steps=source.most)
    began, began_cpu = time.monotonic(), time.process_time()
    losses = training.epoch()
    took, took_cpu = time.monotonic() - began, time.process_time() - began_cpu
    curve = np.array([part.mean() for part in np.array_split(losses, CURVE_POINTS) if len(part)])
    report.figure("samples", source.count)
    report.figure("steps", len(losses))
    report.figure("samples_per_s", source.count / took)
    report.figure("cpu_us_per_sample", 1e6 * took_cpu / source.count)
    report.figure("first_loss", curve[0])
    report.figure("last_loss", curve[-1])
    report.figure("loss_fell_by", curve[0] - curve[-1])
    return curve


def tell_encoder(report: Report, model: TwoTower, shard: Path) -> None:
    """Add how long the exported user encoder takes for one reader, on one thread."""
    users = user_inputs_of(shard)
    with TemporaryDirectory() as folder:
        path = Path(folder) / Part.USER_ENCODER
        export(model.users, path, users)
        session = on_one_thread(path)
    readers = [
        {name: values[row : row + 1] for name, values in users.items()}
        for row in range(len(users["dense"]))
    ]
    tell_latency(
        report,
        "encode_one",
        lambda n: session.run(None, readers[n % len(readers)]),
        requests=ENCODED,
    )


def draw(path: Path, curve: np.ndarray, samples: int) -> None:
    """Write the loss over the samples that were learned from."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 3.5), layout="constrained")
    axis = figure.subplots()
    axis.plot(samples * (np.arange(len(curve)) + 0.5) / len(curve), curve)
    axis.set(xlabel="samples learned from", ylabel="loss", title="bench train")
    axis.grid(alpha=0.3)
    save(path, figure)
