"""`feedrank feed`: what a reader sees, in the terminal."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Annotated, Any
from urllib.parse import quote

import httpx
import pyarrow.dataset as ds
import typer
from feedrank_core.contracts.api import MAX_FEED_LIMIT
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from feedrank_cli.errors import CommandError
from feedrank_cli.invocation import invocation
from feedrank_cli.settings import Settings, load

FACTS = ("item_id", "item_type", "category", "creator_id", "text")


def fetch(settings: Settings, user: str, limit: int) -> dict[str, Any]:
    """One page of a feed. Raises: CommandError with what the gateway said."""
    base = f"http://{settings.host}:{settings.gateway_port}"
    url = f"{base}/v1/users/{quote(user, safe='')}/feed"
    try:
        answer = httpx.get(url, params={"limit": limit}, timeout=10, trust_env=False)
    except httpx.HTTPError as error:
        raise CommandError(
            f"The gateway at {base} does not answer ({type(error).__name__}).",
            f"Start it with: {invocation()} up",
        ) from error
    body = answer.json() if "json" in answer.headers.get("content-type", "") else {}
    if answer.status_code != 200:
        said = body.get("detail") or answer.text[:300]
        remedy = body.get("remedy") or f"There is no feed before the first: {invocation()} daily"
        raise CommandError(f"The gateway answered {answer.status_code}: {said}", remedy)
    return body


def facts(settings: Settings, item_ids: Collection[str]) -> dict[str, dict[str, Any]]:
    """What the catalogue says of these items; {} before the first daily run."""
    path = settings.place.features / "catalogue.parquet"
    if not path.exists():
        return {}
    wanted = ds.field("item_id").isin(list(item_ids))
    rows = ds.dataset(path).to_table(columns=list(FACTS), filter=wanted).to_pylist()
    return {row["item_id"]: row for row in rows}


def title(item_id: str, known: dict[str, dict[str, Any]], width: int = 40) -> str:
    """What to call an item in a row of a table."""
    text = known.get(item_id, {}).get("text") or item_id
    return text if len(text) <= width else text[: width - 1] + "…"


def feed_table(page: dict[str, Any], known: dict[str, dict[str, Any]]) -> Table:
    """A feed as a table."""
    view = Table(title=f"{page['user_id']}  bundle {page['bundle']}", title_justify="left")
    for heading in ("", "item", "title", "category", "type", "source"):
        view.add_column(heading)
    view.add_column("value", justify="right")
    for item in page["items"]:
        row = known.get(item["item_id"], {})
        view.add_row(
            str(item["position"] + 1),
            escape(item["item_id"]),
            escape(title(item["item_id"], known)),
            escape(str(row.get("category", ""))),
            str(row.get("item_type", "")),
            item["source"],
            f"{item['value']:.3f}",
        )
    return view


def feed(
    user: Annotated[str, typer.Argument(help="Any user id; an unknown one gets what is popular.")],
    as_json: Annotated[bool, typer.Option("--json", help="The gateway's answer as it is.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=MAX_FEED_LIMIT, help="Places.")] = 20,
) -> None:
    """Show a reader's feed.

    For example:

        feedrank feed 196

        feedrank feed 196 --json --limit 100
    """
    settings = load()
    page = fetch(settings, user, limit)
    if as_json:
        typer.echo(json.dumps(page, indent=2))
        return
    console = Console(soft_wrap=True)
    console.print(feed_table(page, facts(settings, [i["item_id"] for i in page["items"]])))
    if page["degraded"]:
        console.print(f"degraded: {', '.join(page['degraded'])}", style="yellow")
