"""The catalogue of a bundle: every item by its key, and the bundle's item table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from feedrank_core.contracts.bundle import Part
from feedrank_core.contracts.ids import item_keys
from feedrank_core.contracts.items import IMAGE_VECTOR_DIM, TEXT_VECTOR_DIM, ItemType

VECTORS = {"text_vector": TEXT_VECTOR_DIM, "image_vector": IMAGE_VECTOR_DIM}


class CatalogueError(ValueError):
    """The catalogue cannot become a bundle; the message names the items and the remedy."""


@dataclass(frozen=True)
class Catalogue:
    """Items in the order of their dense index, ascending by key. Shapes: item_key (N,) int64."""

    table: pa.Table
    item_key: np.ndarray

    @classmethod
    def read(cls, path: Path) -> Catalogue:
        """The catalogue of a feature table. Raises: CatalogueError."""
        return cls.of(pq.read_table(path))

    @classmethod
    def of(cls, table: pa.Table) -> Catalogue:
        """The catalogue of these rows. Raises: CatalogueError on none, or two items of one key."""
        if not table.num_rows:
            raise CatalogueError("the catalogue holds no item: publish items, then run the day")
        keys = item_keys(table["item_id"].to_pylist())
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        table = table.take(pa.array(order))
        same = np.flatnonzero(keys[1:] == keys[:-1])
        if len(same):
            first, other = (table["item_id"][int(same[0]) + n].as_py() for n in (0, 1))
            raise CatalogueError(
                f"items {first!r} and {other!r} share item_key {keys[same[0]]}: rename one of them"
            )
        return cls(table, keys)

    def columns(self) -> dict[str, list | np.ndarray]:
        """The columns that the item encoding reads; vectors are matrices, NaN for none."""
        wanted = ("item_id", "item_type", "category", "language", "creator_id", "tags", "text",
                  "duration_s")  # fmt: skip
        there = self.table.column_names
        lists = {n: self.table[n].to_pylist() for n in wanted if n in there}
        dims = {n: dim for n, dim in VECTORS.items() if n in there}
        return lists | {n: vectors_of(self.table[n], dim) for n, dim in dims.items()}

    def indices(self, keys: np.ndarray) -> np.ndarray:
        """Dense indices of keys, -1 for an item that is not here. Shapes: (M,) int64."""
        place = np.minimum(np.searchsorted(self.item_key, keys), len(self.item_key) - 1)
        return np.where(self.item_key[place] == keys, place, -1)

    def write(self, bundle: Path, trained_N: np.ndarray) -> None:
        """Write the item table of a bundle, one file a column."""
        (bundle / Part.ITEM_KEYS).parent.mkdir(parents=True, exist_ok=True)
        ids = np.array([i.encode() for i in self.table["item_id"].to_pylist()], dtype="S")
        types = [t.value for t in ItemType]
        created_us = pc.cast(self.table["created_at"], pa.timestamp("us", "UTC")).cast(pa.int64())
        save(bundle, Part.ITEM_KEYS, self.item_key)
        save(bundle, Part.ITEM_IDS, ids)
        item_type = [types.index(t) for t in self.table["item_type"].to_pylist()]
        save(bundle, Part.ITEM_TYPES, np.array(item_type, np.int8))
        save(bundle, Part.ITEM_CREATED, created_us.to_numpy() / 1e6)
        active = pc.fill_null(self.table["active"], True).to_numpy()
        save(bundle, Part.ITEM_ACTIVE, active.astype(bool))
        save(bundle, Part.ITEM_TRAINED, trained_N)
        for column, codes, names in (
            ("creator_id", Part.ITEM_CREATORS, Part.CREATORS),
            ("category", Part.ITEM_CATEGORIES, Part.CATEGORIES),
        ):
            words, code = np.unique(self.table[column].to_pylist(), return_inverse=True)
            save(bundle, codes, code.astype(np.int32))
            (bundle / names).write_bytes(orjson.dumps(words.tolist()))


def vectors_of(column: pa.ChunkedArray, dim: int) -> np.ndarray:
    """A column of lists as rows, of NaN where there is no list. Shapes: (N, dim) float32."""
    rows = np.full((len(column), dim), np.nan, np.float32)
    start = 0
    for chunk in column.chunks:
        lists = chunk.cast(pa.list_(pa.float32()))
        present = lists.is_valid().to_numpy(zero_copy_only=False)
        values = lists.flatten().to_numpy(zero_copy_only=False)
        rows[start : start + len(chunk)][present] = values.reshape(-1, dim)
        start += len(chunk)
    return rows


def save(bundle: Path, part: Part, values: np.ndarray) -> None:
    """Write one `.npy` part."""
    np.save(bundle / part, values, allow_pickle=False)
