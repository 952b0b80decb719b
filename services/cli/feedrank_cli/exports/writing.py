"""A stream of batches as a file: Parquet, JSON lines or CSV, the texts also packed (.gz)."""

# pyarrow.csv is typed loosely.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import gzip
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import orjson
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from feedrank_cli.errors import CommandError
from feedrank_cli.imports.formats.parquet import TOPIC_KEY

_JSON = "_json"
_ROW_GROUP = 131_072


class Writer(AbstractContextManager, ABC):
    """Writes batches of one schema to a file that ends with the block."""

    @abstractmethod
    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows. Raises: OSError."""

    @abstractmethod
    def close(self) -> None:
        """Write what is left. Raises: OSError."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class ParquetWriter(Writer):
    """Parquet in the contract's types, with the topic in its metadata for the way back."""

    def __init__(self, path: Path, schema: pa.Schema, topic: str | None) -> None:
        if topic is not None:
            schema = schema.with_metadata({TOPIC_KEY: topic.encode()})
        self._file = pq.ParquetWriter(path, schema, compression="zstd")
        self._schema = schema
        self._waiting: list[pa.RecordBatch] = []

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows to the next row group."""
        self._waiting.append(batch.replace_schema_metadata(self._schema.metadata))
        if sum(b.num_rows for b in self._waiting) >= _ROW_GROUP:
            self._write_group()

    def close(self) -> None:
        """Write the last row group and the footer."""
        self._write_group()
        self._file.close()

    def _write_group(self) -> None:
        if self._waiting:
            self._file.write_table(pa.Table.from_batches(self._waiting, self._schema))
        self._waiting = []


class JsonLinesWriter(Writer):
    """A JSON object a line, nested where the contract is, times in RFC 3339."""

    def __init__(self, path: Path, schema: pa.Schema, packed: bool) -> None:
        self._file = _opened(path, packed)
        self._nested = [name for name in schema.names if name.endswith(_JSON)]

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows."""
        for row in batch.to_pylist():
            for name in self._nested:
                text = row.pop(name)
                row[name.removesuffix(_JSON)] = None if text is None else orjson.Fragment(text)
            self._file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))

    def close(self) -> None:
        """Write what is left."""
        self._file.close()


class CsvWriter(Writer):
    """CSV with a header; lists are JSON texts."""

    def __init__(self, path: Path, schema: pa.Schema, packed: bool) -> None:
        self._file = _opened(path, packed)
        self._lists = [f.name for f in schema if pa.types.is_list(f.type)]
        fields = [pa.field(f.name, pa.string()) if f.name in self._lists else f for f in schema]
        self._schema = pa.schema(fields)
        self._writer = pa_csv.CSVWriter(self._file, self._schema)

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows."""
        columns = [
            _texts(batch.column(name)) if name in self._lists else batch.column(name)
            for name in self._schema.names
        ]
        self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=self._schema))

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
        self._file.close()


FORMATS = ("parquet", "jsonl", "csv")


def format_of(path: Path, wanted: str | None) -> str:
    """The format of a file, by its name where nothing is said. Raises: CommandError."""
    name = path.name.removesuffix(".gz")
    found = wanted or name.rpartition(".")[2]
    if found not in FORMATS:
        raise CommandError(
            f"{path.name} does not say its format by its ending.",
            f"Give --format, one of {', '.join(FORMATS)}.",
            code=2,
        )
    return found


def writer(path: Path, form: str, schema: pa.Schema, *, topic: str | None, packed: bool) -> Writer:
    """What writes this format. Raises: OSError."""
    if form == "parquet":
        return ParquetWriter(path, schema, topic)
    return (JsonLinesWriter if form == "jsonl" else CsvWriter)(path, schema, packed)


def _opened(path: Path, packed: bool) -> BinaryIO:
    file: Any = gzip.GzipFile(path, "wb", compresslevel=6) if packed else path.open("wb")
    return file


def _texts(column: pa.Array) -> pa.Array:
    rows = column.to_pylist()
    return pa.array([None if r is None else orjson.dumps(r).decode() for r in rows], pa.string())
