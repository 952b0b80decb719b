"""`feedrank export`: any table as a file."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import duckdb
import pyarrow as pa
import typer
from feedrank_core.runtime.atomic import replacing
from feedrank_core.runtime.home import Home
from feedrank_core.runtime.lake_schema import contract_schema
from feedrank_core.runtime.progress import Tick, progress

from feedrank_cli.errors import CommandError
from feedrank_cli.exports.tables import stream, table_names, topic_of
from feedrank_cli.exports.writing import FORMATS, format_of, writer
from feedrank_cli.settings import load


def export_table(
    home: Home,
    table: str,
    path: Path,
    *,
    form: str | None,
    as_of: datetime | None,
    where: str | None,
    tick: Tick,
) -> int:
    """Write a table to a file, which appears whole or not at all; its rows.

    Raises: CommandError.
    """
    form, topic = format_of(path, form), topic_of(table)
    packed = path.name.endswith(".gz")
    rows = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            stream(home, table, as_of=as_of, where=where, beside=path.parent) as batches,
            replacing(path) as unfinished,
        ):
            schema = batches.schema if topic is None else contract_schema(topic)
            with writer(unfinished, form, schema, topic=topic, packed=packed) as out:
                for batch in batches:
                    out.write(batch.cast(schema))
                    rows += batch.num_rows
                    tick(batch.num_rows)
    except (OSError, pa.ArrowException, duckdb.Error) as error:
        raise CommandError(
            f"{path} was not written: {error}.", "What was there before is there still."
        ) from error
    return rows


def export(
    table: Annotated[str, typer.Argument(help="One of: " + ", ".join(table_names()) + ".")],
    path: Annotated[Path, typer.Argument(help="The file; what is there is replaced at the end.")],
    form: Annotated[
        str | None,
        typer.Option("--format", metavar="|".join(FORMATS), help="By the path's ending if absent."),
    ] = None,
    as_of: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"],
            help="Only what was accepted by then, UTC where no zone is given.",
        ),
    ] = None,
    where: Annotated[
        str | None, typer.Option(help="Only rows that meet this condition, in DuckDB's SQL.")
    ] = None,
) -> None:
    """Write a table of the lake or of the features to a file, as a stream.

    Events once each, readers and items as last published; user_versions holds every profile, a
    table under log/ every record. An export of a view imported again gives the same table.

    For example:

        feedrank export interactions likes.parquet --where "event_type = 'like'"

        feedrank export items items.jsonl.gz --as-of 2026-11-01

        feedrank export features/user_counters counters.csv
    """
    moment = as_of if as_of is None or as_of.tzinfo else as_of.replace(tzinfo=UTC)
    home = load().place
    with progress(table, None) as tick:
        rows = export_table(home, table, path, form=form, as_of=moment, where=where, tick=tick)
    typer.echo(f"{rows:,} rows of {table}: {path}")
