"""Builds what the trainer's commands need: the only file that opens lake and bundle store."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import orjson
import torch
from feedrank_core.runtime.atomic import write_atomically
from feedrank_core.runtime.bundle_store import Bundle, BundleStore
from feedrank_core.runtime.lake import Lake
from feedrank_core.runtime.metrics import Metrics

from feedrank_trainer.pairs import write_pairs
from feedrank_trainer.presets import PRESETS
from feedrank_trainer.progress import counted, epoch_report
from feedrank_trainer.ranks import Ranks
from feedrank_trainer.run import Place, open_run, train_bundle
from feedrank_trainer.settings import Settings
from feedrank_trainer.training import Epoch

OFFSETS = "offsets.json"
BUNDLE = "bundle.json"


def make_pairs(settings: Settings, run: Path, as_of: datetime, metrics: Metrics) -> int:
    """Write the run's examples; answers how many."""
    home = settings.place
    run.mkdir(parents=True, exist_ok=True)
    with Lake(home.lake).connect(as_of) as connection:
        connection.execute("SET preserve_insertion_order = false")
        report = metrics.gauge("pairs").set
        return write_pairs(home.features, run, as_of=as_of, connection=connection, report=report)


def make_bundle(
    settings: Settings,
    run: Path,
    metrics: Metrics,
    *,
    seed: int,
    epochs: int | None,
    ranks: Ranks = Ranks(),  # noqa: B008 - frozen
) -> Bundle | None:
    """Train on the run's examples; the bundle's id is also left in the run's folder.

    A try that was killed is taken up after its last whole epoch. None on all ranks but the first.
    """
    torch.set_num_threads(max(1, settings.threads // ranks.size))
    home = settings.place
    preset = PRESETS[settings.preset]
    config = replace(
        preset,
        epochs=epochs or settings.epochs or preset.epochs,
        batch_size=settings.batch_size or preset.batch_size,
        max_steps=settings.max_steps,
    )
    prepared = open_run(home.features, run)
    metrics.gauge("pairs").set(prepared.num_pairs)
    place = Place(settings.device, ranks, folder=run)
    with epoch_report(config.epochs) as show:

        def report(epoch: Epoch) -> None:
            if ranks.is_first:
                counted(metrics, epoch)
                show(epoch)

        bundle = train_bundle(
            prepared,
            BundleStore(home.bundles),
            config=config,
            seed=seed,
            offsets=read_offsets(run),
            report=report,
            place=place,
        )
    if bundle is None:
        return None
    write_atomically(run / BUNDLE, orjson.dumps({"bundle_id": bundle.bundle_id}))
    place.tidy()
    return bundle


def read_offsets(run: Path) -> dict[str, int]:
    """The offsets that `collect` pinned; none in a run made by hand."""
    file = run / OFFSETS
    return orjson.loads(file.read_bytes())["offsets"] if file.exists() else {}
