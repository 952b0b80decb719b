"""Users as the feature store snapshots them, in chunks, ready for the user encoder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from feedrank_core.contracts.bundle import Part
from feedrank_core.contracts.features import HISTORY_COLUMNS, USER_PROFILE_COLUMNS
from feedrank_core.features.encoding import (
    HISTORY_LENGTH,
    FeatureSchema,
    History,
    action_ids,
    encode_users,
)
from feedrank_core.runtime.bundle_store import Bundle

from feedrank_batch_ranker.indexing import encoder, run_encoder


@dataclass(frozen=True)
class Readers:
    """A chunk of users. `seen` holds (row, item_key) pairs as two arrays of one length."""

    ids: list[str]
    columns: dict[str, Any]
    history: tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]
    seen: tuple[np.ndarray, np.ndarray]


def read_users(path: Path, chunk: int, schema: FeatureSchema) -> Iterator[pa.RecordBatch]:
    """Exactly `chunk` users at a time, in the file's order; the last has the rest."""
    with pq.ParquetFile(path) as file:
        known = set(file.schema_arrow.names)
        wanted = ("user_id", *USER_PROFILE_COLUMNS, *HISTORY_COLUMNS, "seen", *schema.user_dense)
        yield from file.iter_batches(chunk, columns=[name for name in wanted if name in known])


def as_readers(batch: pa.RecordBatch) -> Readers:
    """Lists become flat arrays and the row each element belongs to."""
    lists = {*HISTORY_COLUMNS, "seen"}
    columns = {n: batch[n].to_pylist() for n in batch.schema.names if n not in lists}
    row, key = flat(batch, "hist_item_key")
    _, at = flat(batch, "hist_at")
    _, action = flat(batch, "hist_action")
    seconds = at.cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy() / 1e6
    seen_row, seen_key = flat(batch, "seen")
    return Readers(
        columns["user_id"],
        columns,
        (row, key.to_numpy(), seconds, action.to_pylist()),
        (seen_row, seen_key.to_numpy()),
    )


def flat(batch: pa.RecordBatch, name: str) -> tuple[np.ndarray, pa.Array]:
    """The elements of a list column and the row of each."""
    lists = batch[name]
    lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    return np.repeat(np.arange(len(lists)), lengths), lists.flatten()


class UserEncoder:
    """User vectors of one bundle. Items the bundle does not hold are masked."""

    def __init__(self, bundle: Bundle) -> None:
        self.schema = FeatureSchema.model_validate_json(
            bundle.part(Part.FEATURE_SCHEMA).read_bytes()
        )
        self._session = encoder(bundle.part(Part.USER_ENCODER))
        self._now_s = bundle.manifest.as_of.timestamp()
        self._key_N = np.asarray(bundle.array(Part.ITEM_KEYS))
        self._vector_ND = bundle.array(Part.ITEM_VECTORS)

    def dense_indices(self, keys: np.ndarray) -> np.ndarray:
        """Dense index of each item key, -1 where the bundle lacks it."""
        place = np.searchsorted(self._key_N, keys).clip(max=len(self._key_N) - 1)
        return np.where(self._key_N[place] == keys, place, -1)

    def vectors(self, readers: Readers) -> np.ndarray:
        """Shapes: (B, 64) float32."""
        inputs = encode_users(
            self.schema, readers.columns, self._history(readers), now_s=self._now_s
        )
        return run_encoder(self._session, inputs)

    def _history(self, readers: Readers) -> History:
        row, key, seconds, actions = readers.history
        history = History.empty(len(readers.ids))
        if not len(row):
            return history
        # The newest action stands last, as in training; more than fit lose their oldest.
        place = HISTORY_LENGTH - (np.searchsorted(row, row, side="right") - np.arange(len(row)))
        index = self.dense_indices(key)
        keep = (place >= 0) & (index >= 0)
        at = (row[keep], place[keep])
        history.vectors[at] = self._vector_ND[index[keep]]
        history.actions[at] = action_ids(self.schema, actions)[keep]
        history.at_s[at] = seconds[keep]
        history.mask[at] = True
        return history
