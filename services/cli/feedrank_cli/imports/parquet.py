"""Parquet in the columns of the contracts, a file a topic: history straight to the lake."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from feedrank_cli.errors import CommandError
from feedrank_cli.imports.landing import CHUNK_ROWS, Landing, digest, existing

HELP = "DIR/{items,users,impressions,interactions,slates}.parquet, straight to the lake"
TOPICS = ("items", "users", "slates", "impressions", "interactions")


def bring(path: Path, landing: Landing) -> None:
    """Every file that is there; each chunk lands once however often it is imported."""
    folder = existing(path)
    files = {topic: folder / f"{topic}.parquet" for topic in TOPICS}
    there = {topic: file for topic, file in files.items() if file.exists()}
    if not there:
        raise CommandError(
            f"{folder} holds none of {', '.join(f.name for f in files.values())}.",
            "`feedrank simulate bulk --out DIR` writes such a folder.",
            code=2,
        )
    parts = [(t, p) for t, f in there.items() for p in (sorted(f.glob("*.parquet")) or [f])]
    for topic, file in parts:
        try:
            source, parquet = digest(file), pq.ParquetFile(file)
            for number, batch in enumerate(parquet.iter_batches(batch_size=CHUNK_ROWS)):
                table = pa.Table.from_batches([batch])
                landing.to_lake(topic, table, source=source, chunk=number)
        except pa.ArrowInvalid as error:
            raise CommandError(f"{file} is not readable Parquet: {error}.") from error
