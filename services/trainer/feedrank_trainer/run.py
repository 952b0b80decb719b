"""One training run: shards in, a sealed bundle out."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from feedrank_core.contracts.bundle import Manifest, Part, PopularLists, Stage
from feedrank_core.contracts.features import Table
from feedrank_core.features.encoding import FeatureSchema, encode_items
from feedrank_core.models.two_tower import TwoTower
from feedrank_core.runtime.bundle_store import Bundle, BundleStore

from feedrank_trainer.batching import ItemInputs
from feedrank_trainer.catalogue import Catalogue
from feedrank_trainer.checkpoint import Checkpoint
from feedrank_trainer.comparison import baselines, compare, ndcg, towers
from feedrank_trainer.configuration import TrainingConfig
from feedrank_trainer.examples import Shards
from feedrank_trainer.holdout import Holdout, holdout_from, triples
from feedrank_trainer.onnx_export import PARITY_ROWS, export_encoders, user_inputs_of
from feedrank_trainer.pairs import PAIRS, SCHEMA, SEGMENTS, SUMMARY
from feedrank_trainer.popularity import popular_lists
from feedrank_trainer.ranks import Ranks
from feedrank_trainer.training import Epoch, fit

REFIT_EPOCHS = 3
"""After the evaluation: passes over everything, so that the bundle knows the newest actions. By
hand three let the demo's reader feel a day's likes more surely than one.

The refitted towers cannot be measured on what they then have seen; the manifest tells both.
"""
FOOTER_BYTES = 1 << 16


class RunError(RuntimeError):
    """A run cannot go on; the message names the file and the remedy."""


@dataclass(frozen=True)
class Place:
    """Where towers are trained: on which device, and by which of how many processes.

    Checkpoints lie in `folder` until the bundle is known; without one there are none.
    """

    device: str = "cpu"
    ranks: Ranks = field(default_factory=Ranks)
    folder: Path | None = None

    def require_room_for(self, shards: tuple[Path, ...]) -> None:
        """Raises: RunError where these processes cannot train together."""
        size = self.ranks.size
        if size > 1 and self.device != "cpu":
            raise RunError(f"{size} processes train together on cpu alone, not on {self.device}")
        if len(shards) < size:
            raise RunError(f"{size} processes cannot share {len(shards)} shards: start fewer")

    def checkpoints(self, made_for: dict[str, str]) -> Iterator[Checkpoint | None]:
        """The training's and the refit's."""
        for name in ("training", "refit"):
            path = None if self.folder is None else self.folder / f"{name}.checkpoint"
            yield None if path is None else Checkpoint(path, made_for)

    def tidy(self) -> None:
        """Drop what nobody will go on from."""
        for checkpoint in self.checkpoints({}):
            if checkpoint is not None:
                checkpoint.remove()


@dataclass(frozen=True)
class Prepared:
    """What `pairs` left behind, opened."""

    schema: FeatureSchema
    catalogue: Catalogue
    segments: pa.Table
    shards: tuple[Path, ...]
    cuts_s: tuple[float, float]
    as_of: datetime
    num_pairs: int


def open_run(features: Path, run: Path) -> Prepared:
    """The work of `pairs`. Raises: RunError where it is missing or empty."""
    summary_file = run / SUMMARY
    if not summary_file.exists():
        raise RunError(f"{summary_file} is missing: run `python -m feedrank_trainer pairs` first")
    summary = orjson.loads(summary_file.read_bytes())
    shards = tuple(sorted((run / PAIRS).glob("*.parquet")))
    if not summary["pairs"]:
        raise RunError("there is no engaged action to learn from: send events, then run the day")
    return Prepared(
        FeatureSchema.model_validate_json((run / SCHEMA).read_bytes()),
        Catalogue.read(features / Table.CATALOGUE.value),
        pq.read_table(run / SEGMENTS),
        shards,
        (summary["cuts_s"][0], summary["cuts_s"][1]),
        datetime.fromisoformat(summary["as_of"]),
        summary["pairs"],
    )


def train_bundle(
    prepared: Prepared,
    store: BundleStore,
    *,
    config: TrainingConfig,
    seed: int,
    offsets: dict[str, int],
    report: Callable[[Epoch], None] = lambda epoch: None,
    place: Place = Place(),
) -> Bundle | None:
    """Fit on what came before the cuts, measure on what came after, refit, seal.

    None on all ranks but the first, which alone measures and writes. Raises: RunError, DeviceError.
    """
    place.require_room_for(prepared.shards)
    fit_here = partial(
        fit, schema=prepared.schema, seed=seed, device=place.device, ranks=place.ranks
    )
    early, late, until_s = held_out(prepared, seed=seed)
    items, _ = items_as_of(prepared, until_s)
    shards = place.ranks.share(prepared.shards)
    first, second = place.checkpoints(fingerprint(prepared))
    model = fit_here(
        Shards(shards, stop_s=until_s),
        items,
        config=config,
        validate=None if early is None else lambda model: ndcg(early, model, items),
        report=report,
        checkpoint=first,
    )
    metrics: dict[str, dict[str, float]] = {}
    if late is not None and place.ranks.is_first:
        contenders = {"two_tower": towers(late, model, items), **baselines(late)}
        metrics = compare(late, contenders, seed=seed)
    items, trained_N = items_as_of(prepared, np.inf)
    refit_epochs = REFIT_EPOCHS if until_s < np.inf else 0
    if refit_epochs:
        model = fit_here(
            Shards(shards),
            items,
            config=refit_of(config),
            start=model,
            checkpoint=second and second.after(asdict(config)),
        )
    if not place.ranks.is_first:
        return None
    return write_bundle(
        prepared,
        store,
        model,
        items,
        trained_N,
        metrics,
        config={**asdict(config), "pairs": prepared.num_pairs, "refit_epochs": refit_epochs},
        seed=seed,
        offsets=offsets,
    )


def held_out(prepared: Prepared, *, seed: int) -> tuple[Holdout | None, Holdout | None, float]:
    """What to stop by, what to measure on, and the time before which to fit."""
    stop_s, test_s = prepared.cuts_s
    num_items = len(prepared.catalogue.item_key)
    early, late = (
        holdout_from(prepared.shards, num_items, start_s=start, stop_s=stop, seed=seed)
        for start, stop in ((stop_s, test_s), (test_s, np.inf))
    )
    return early, late, stop_s if early else test_s if late else np.inf


def refit_of(config: TrainingConfig) -> TrainingConfig:
    """At the rate where the training ended: a larger one would undo what it settled on."""
    last = config.learning_rate * config.last_learning_rate
    return replace(config, epochs=REFIT_EPOCHS, learning_rate=last, last_learning_rate=1.0)


def fingerprint(prepared: Prepared) -> dict[str, str]:
    """What tells these examples and this catalogue from others, without reading all of them.

    The end of a Parquet file holds the sizes and the bounds of its columns.
    """
    examples = xxhash.xxh3_64()
    for path in prepared.shards:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - FOOTER_BYTES))
            examples.update(f"{path.name} {size} ".encode() + file.read())
    catalogue = xxhash.xxh3_64(prepared.catalogue.item_key.tobytes())
    return {"examples": examples.hexdigest(), "catalogue": catalogue.hexdigest()}


def items_as_of(prepared: Prepared, before_s: float) -> tuple[ItemInputs, np.ndarray]:
    """The item tower's inputs, and which items had a positive before a time. Shapes: (N,) bool."""
    trained_N = np.zeros(len(prepared.catalogue.item_key), bool)
    for _, item, at_s in triples(prepared.shards):
        trained_N[item[at_s < before_s]] = True
    columns = prepared.catalogue.columns()
    return encode_items(prepared.schema, columns, trained=trained_N), trained_N


def write_bundle(
    prepared: Prepared,
    store: BundleStore,
    model: TwoTower,
    items: ItemInputs,
    trained_N: np.ndarray,
    metrics: dict[str, dict[str, float]],
    *,
    config: dict[str, str | int | float | bool],
    seed: int,
    offsets: dict[str, int],
) -> Bundle:
    """Write every part but the index, and seal.

    `metrics` are of the towers before the refit, on a slice that those had not seen.
    """
    now = datetime.now(UTC)
    bundle_id = f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
    path = store.create(bundle_id)
    prepared.catalogue.write(path, trained_N)
    np.savez(path / Part.ITEM_INPUTS, **items)  # pyright: ignore[reportArgumentType]
    (path / Part.FEATURE_SCHEMA).write_text(prepared.schema.model_dump_json(indent=2))
    (path / Part.METRICS).write_bytes(orjson.dumps(metrics, option=orjson.OPT_INDENT_2))
    (path / Part.POPULAR).write_text(popular_of(prepared, path).model_dump_json())
    head = {name: values[:PARITY_ROWS] for name, values in items.items()}
    export_encoders(model, path, head, user_inputs_of(prepared.shards[0]))
    return store.seal(
        Manifest(
            bundle_id=bundle_id,
            stage=Stage.TRAINED,
            created_at=now,
            as_of=prepared.as_of,
            num_items=len(trained_N),
            seed=seed,
            offsets=offsets,
            config=config,
            metrics={k: v for k, v in metrics.get("two_tower", {}).items() if v == v},
            files={},
        )
    )


def popular_of(prepared: Prepared, path: Path) -> PopularLists:
    """The bundle's popular lists."""
    return popular_lists(
        prepared.shards,
        prepared.segments,
        active_N=np.load(path / Part.ITEM_ACTIVE),
        created_s_N=np.load(path / Part.ITEM_CREATED),
        as_of_s=prepared.as_of.timestamp(),
    )
