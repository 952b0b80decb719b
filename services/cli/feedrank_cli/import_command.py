"""`feedrank import`: data from elsewhere."""

from __future__ import annotations

import importlib
import pkgutil
from contextlib import closing
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer
import xxhash
from feedrank_core.runtime.progress import progress
from rich.console import Console

import feedrank_cli.imports.formats as formats
from feedrank_cli.errors import CommandError
from feedrank_cli.imports.bring import Outcome, bring, plan
from feedrank_cli.imports.mapping import Mapping, check_columns, load_mapping
from feedrank_cli.imports.pieces import Source
from feedrank_cli.imports.routes import IntakeRoute, LakeRoute
from feedrank_cli.imports.schema_check import check_schema
from feedrank_cli.settings import Settings, load

EXAMPLE = "example_mapping.yaml"
ROUTES: dict[str, type[LakeRoute] | type[IntakeRoute]] = {"lake": LakeRoute, "intake": IntakeRoute}


def discover() -> dict[str, ModuleType]:
    """Every format, by its file's name."""
    return {
        info.name: importlib.import_module(f"{formats.__name__}.{info.name}")
        for info in pkgutil.iter_modules(formats.__path__)
    }


def example_mapping() -> str:
    """A mapping file that shows every rule."""
    return resources.files("feedrank_cli.imports").joinpath(EXAMPLE).read_text()


def bring_in(
    settings: Settings,
    format_name: str,
    path: Path,
    *,
    to: str | None = None,
    mapping: Mapping | None = None,
    topic: str | None = None,
    rejects: Path | None = None,
    ignore_unknown: bool = False,
) -> Outcome:
    """Import a file or folder. Raises: CommandError, where it can before anything is kept."""
    module = _format(format_name)
    way = to or module.ROUTES[0]
    if way not in module.ROUTES:
        raise CommandError(f"{format_name} goes to {' or '.join(module.ROUTES)} only.", code=2)
    sources = module.sources(path, topic)
    _check(sources, mapping, ignore_unknown=ignore_unknown)
    folder = settings.place.imports
    if rejects is None:
        name = xxhash.xxh3_64_hexdigest(str(path.absolute()).encode())[:8]
        rejects = folder / f"{path.stem}-{name}.rejects.jsonl"
    try:
        with closing(ROUTES[way](settings)) as route:
            jobs = plan(sources, route, mapping, folder, way)
            done = sum(job.source.size for job in jobs if job.checkpoint.through)
            size = sum(source.size for source in sources)
            with progress(format_name, size, done=done) as tick:
                return bring(jobs, route, mapping, rejects, tick)
    except OSError as error:
        raise CommandError(
            f"The import stopped: {error}.", "Mend it and import again: it goes on from there."
        ) from error


def show(outcome: Outcome, console: Console) -> None:
    """What came in, by topic, and where the rest lies."""
    for topic in sorted({*outcome.new, *outcome.known}):
        again = outcome.known[topic]
        note = f" ({again:,} were there already, or are of erased readers)" if again else ""
        console.print(f"{topic:<13} {outcome.new[topic]:>12,} new{note}")
    first = outcome.rejects.first
    if first is not None:
        console.print(
            f"{outcome.rejects.count:,} rows refused, the first at {first['file']}:{first['line']}"
            f" ({first['reason']}); all, with their reasons: {outcome.rejects.path}",
            markup=False,
        )


def _print_example(wanted: bool) -> None:
    if wanted:
        typer.echo(example_mapping(), nl=False)
        raise typer.Exit


def import_data(
    format_name: Annotated[str, typer.Argument(metavar="FORMAT", help="movielens|jsonl|parquet")],
    path: Annotated[Path, typer.Argument(help="A file, or a folder of many.")],
    mapping: Annotated[
        Path | None,
        typer.Option(help="YAML, TOML or JSON: which column becomes which field."),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(metavar="lake|intake", help="jsonl: intake if absent; else the lake."),
    ] = None,
    topic: Annotated[
        str | None, typer.Option(help="What the rows are, where nothing says.")
    ] = None,
    rejects: Annotated[Path | None, typer.Option(help="Where refused rows are written.")] = None,
    ignore_unknown: Annotated[
        bool, typer.Option("--ignore-unknown", help="Leave out columns that no contract knows.")
    ] = False,
    _example: Annotated[
        bool,
        typer.Option(
            "--example-mapping", is_eager=True, callback=_print_example, help="Print one and exit."
        ),
    ] = False,
) -> None:
    """Bring data in: straight to the lake, or through the intake as clients' events.

    An import that was stopped or killed is continued by the same command; importing the same
    content again adds nothing. Rows that cannot be used go to a file with their line and the
    reason; exit 1 when nothing at all came in. Files may be larger than memory, .jsonl.gz too.

    For example:

        feedrank import movielens data/ml-100k

        feedrank import parquet world/

        feedrank import jsonl events.jsonl --to lake

        feedrank import --example-mapping > shop.yaml

        feedrank import parquet shop/ --mapping shop.yaml
    """
    outcome = bring_in(
        load(),
        format_name,
        path,
        to=to,
        mapping=None if mapping is None else load_mapping(mapping),
        topic=topic,
        rejects=rejects,
        ignore_unknown=ignore_unknown,
    )
    show(outcome, Console(soft_wrap=True))
    if not outcome.new.total() + outcome.known.total():
        raise typer.Exit(1)


def _format(name: str) -> ModuleType:
    found = discover()
    if name not in found:
        raise CommandError(
            f"There is no format {name!r}.",
            "Known:\n" + "\n".join(f"  {known:<10} {m.HELP}" for known, m in found.items()),
            code=2,
        )
    return found[name]


def _check(sources: list[Source], mapping: Mapping | None, *, ignore_unknown: bool) -> None:
    for source in sources:
        schema = source.schema
        if schema is None:
            continue
        if mapping is not None:
            check_columns(mapping, schema.names, source.path)
        else:
            check_schema(source, schema, ignore_unknown=ignore_unknown)
