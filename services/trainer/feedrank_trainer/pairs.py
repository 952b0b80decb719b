"""Writes the examples of a run: shards of Parquet, made of whole readers, in little memory."""

# pyarrow.compute builds its functions at import, where pyright does not see them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path

import duckdb
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from feedrank_core.contracts.features import USER_PROFILE_COLUMNS, Table
from feedrank_core.contracts.ids import item_key
from feedrank_core.features.encoding import FeatureSchema, action_ids, encode_profiles

from feedrank_trainer.catalogue import Catalogue
from feedrank_trainer.examples import Examples, Log, examples_of, open_shard
from feedrank_trainer.labels import USER_DENSE, decayed_counters, labelled_actions, seconds
from feedrank_trainer.pieces import Piece, pieces
from feedrank_trainer.popularity import segments_of

ROWS_AT_A_TIME = 1 << 16
PAIRS = "pairs"
SUMMARY = "pairs.json"
SCHEMA = "feature_schema.json"
SEGMENTS = "segments.parquet"


@dataclass(frozen=True)
class Readers:
    """The row of each reader in `users.parquet`, and the segment of each row.

    `segments` has the columns user and segment.
    """

    row_of: dict[str, int]
    segments: pa.Table

    @classmethod
    def read(cls, path: Path) -> Readers:
        """The readers of a feature table; none where there is no file."""
        if not path.exists():
            return cls({}, segments_of([], []))
        # A row also holds histories, counters and what was seen: kilobytes that nobody needs here.
        table = pq.read_table(path, columns=["user_id", "country", "platform"])
        row_of = {user_id: row for row, user_id in enumerate(table["user_id"].to_pylist())}
        return cls(row_of, segments_of(table["country"].to_pylist(), table["platform"].to_pylist()))


def write_pairs(
    features: Path,
    run: Path,
    *,
    as_of: datetime,
    connection: duckdb.DuckDBPyConnection,
    report: Callable[[int], None] = lambda pairs: None,
) -> int:
    """Write the shards, the schema they were encoded by, and a summary; answers how many pairs.

    `report` is told how many there are so far. What the run needs of the readers' table is in its
    folder then: rows of the table may go with an erasure at any time.
    """
    catalogue = Catalogue.read(features / Table.CATALOGUE.value)
    readers = Readers.read(features / Table.USERS.value)
    schema = FeatureSchema.fit(
        {n: catalogue.table[n].to_pylist() for n in ("item_id", "category", "language")},
        {"country": ever_seen(features / Table.USER_PROFILES.value, "country")},
        user_dense=USER_DENSE,
    )
    folder = emptied(run / PAIRS)
    actions = labelled_actions(features, as_of=as_of, connection=connection, rows=ROWS_AT_A_TIME)
    pairs = 0
    times: list[np.ndarray] = []
    for shard, some in groupby(pieces(known(actions, catalogue)), key=lambda piece: piece.shard):
        with open_shard(folder / f"{shard:05d}.parquet") as write:
            for piece in some:
                examples = examples_from(piece, catalogue, readers, schema)
                write(examples)
                pairs += len(examples["user"])
                report(pairs)
                times.append(examples["at_s"])
    (run / SCHEMA).write_text(schema.model_dump_json())
    pq.write_table(readers.segments, run / SEGMENTS)
    at_s = np.concatenate(times) if times else np.empty(0)
    cuts = np.quantile(at_s, (0.85, 0.92)).tolist() if len(at_s) else [0.0, 0.0]
    summary = {"as_of": as_of.isoformat(), "pairs": pairs, "cuts_s": cuts}
    (run / SUMMARY).write_bytes(orjson.dumps(summary))
    return pairs


def emptied(folder: Path) -> Path:
    """The folder, there and without shards of an earlier try."""
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("*.parquet"):
        stale.unlink()
    return folder


def ever_seen(path: Path, column: str) -> list[str]:
    """The distinct values of a column over all versions of all readers."""
    return pc.unique(pq.read_table(path, columns=[column])[column]).to_pylist()


def known(batches: Iterable[pa.RecordBatch], catalogue: Catalogue) -> Iterator[pa.Table]:
    """The actions on items of the catalogue: no other is a label or history."""
    for batch in batches:
        table = pa.Table.from_batches([batch])
        yield table.filter(pa.array(catalogue.indices(table["item_key"].to_numpy()) >= 0))


def log_of(
    piece: Piece, catalogue: Catalogue, readers: Readers, schema: FeatureSchema
) -> tuple[Log, np.ndarray]:
    """The piece as a log, and which row of the piece each action is."""
    table = piece.rows
    ids = table["user_id"].to_pylist()
    user = [row if (row := readers.row_of.get(u)) is not None else stranger(u) for u in ids]
    is_new = np.arange(table.num_rows) >= piece.num_before
    log = Log(
        np.array(user, np.int64),
        catalogue.indices(table["item_key"].to_numpy()),
        action_ids(schema, table["action"].to_pylist()),
        seconds(table["at"]),
        table["is_label"].to_numpy(zero_copy_only=False).astype(bool) & is_new,
    )
    order = np.lexsort((log.at_s, log.user))
    return log.rows(order), order


def stranger(user_id: str) -> int:
    """A number for a reader without a row, above every row number."""
    return 1 << 61 | item_key(user_id) & (1 << 61) - 1


def examples_from(
    piece: Piece, catalogue: Catalogue, readers: Readers, schema: FeatureSchema
) -> Examples:
    """An example for each new label of the piece."""
    table = piece.rows
    log, rows = log_of(piece, catalogue, readers, schema)
    dense = decayed_counters(table, seconds(table["at"]))[rows]
    labelled = table.select(USER_PROFILE_COLUMNS).take(pa.array(rows[log.is_label]))
    profiles = encode_profiles(schema, labelled.to_pydict(), labelled.num_rows)
    return examples_of(log, dense=dense) | profiles
