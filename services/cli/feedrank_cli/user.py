"""`feedrank user`: erase a reader, merge one into another, and see what became of it."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import quote

import httpx
import typer
from feedrank_core.contracts.user_changes import ChangeId, Receipt, StoreReceipt, StoreState
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.table import Table

from feedrank_cli.errors import CommandError
from feedrank_cli.invocation import invocation
from feedrank_cli.settings import Settings, load

POLL_S = 0.5
WAIT_S = 300.0

_CHANGE_ID = TypeAdapter(ChangeId)

user = typer.Typer(no_args_is_help=True, help=__doc__)

Wait = Annotated[bool, typer.Option("--wait", help="Until no store is pending any more.")]
Timeout = Annotated[float, typer.Option(min=1, help="Seconds that --wait waits at most.")]
AsJson = Annotated[bool, typer.Option("--json", help="The intake's answer as it is.")]


@user.command()
def erase(
    user_id: Annotated[str, typer.Argument(metavar="ID", help="The reader to forget.")],
    wait: Wait = False,
    timeout: Timeout = WAIT_S,
    as_json: AsJson = False,
) -> None:
    """Erase a reader everywhere. Whoever comes back under this id is somebody new.

    For example:

        feedrank user erase 196

        feedrank user erase 196 --wait
    """
    settings = load()
    receipt = _ask(settings, "DELETE", f"/v1/users/{_quoted(user_id)}")
    _show(settings, receipt, wait, timeout, as_json)


@user.command()
def merge(
    user_id: Annotated[str, typer.Argument(metavar="FROM", help="The anonymous reader.")],
    into: Annotated[str, typer.Argument(metavar="INTO", help="Who that turned out to be.")],
    wait: Wait = False,
    timeout: Timeout = WAIT_S,
    as_json: AsJson = False,
) -> None:
    """Give what a reader did until now to another; the first then has nothing.

    For example:

        feedrank user merge anon-77 196 --wait
    """
    settings = load()
    receipt = _ask(settings, "POST", f"/v1/users/{_quoted(user_id)}:merge", {"into": into})
    _show(settings, receipt, wait, timeout, as_json)


@user.command()
def receipt(
    known_by: Annotated[
        str, typer.Argument(metavar="ID", help="A receipt's id, or a reader who was erased.")
    ],
    wait: Wait = False,
    timeout: Timeout = WAIT_S,
    as_json: AsJson = False,
) -> None:
    """Show what each store has done about an erasure or a merge.

    For example:

        feedrank user receipt 5b1e0c0c8f1e4a0f9a9f6f0d2c3b4a59

        feedrank user receipt 196
    """
    settings = load()
    try:
        path = f"/v1/receipts/{_CHANGE_ID.validate_python(known_by)}"
    except ValidationError:
        path = f"/v1/users/{_quoted(known_by)}/erasure"
    _show(settings, _ask(settings, "GET", path), wait, timeout, as_json)


def _quoted(user_id: str) -> str:
    return quote(user_id, safe="")


def _ask(settings: Settings, method: str, path: str, body: Any = None) -> Receipt:
    """The intake's answer. Raises: CommandError with what the intake said."""
    base = f"http://{settings.host}:{settings.ingestion_port}"
    try:
        answer = httpx.request(method, base + path, json=body, timeout=10, trust_env=False)
    except httpx.HTTPError as error:
        raise CommandError(
            f"The intake at {base} does not answer ({type(error).__name__}).",
            f"Start it with: {invocation()} up",
        ) from error
    if answer.is_success:
        return Receipt.model_validate_json(answer.content)
    is_json = "json" in answer.headers.get("content-type", "")
    said = answer.json() if is_json else {"detail": answer.text[:300]}
    text = f"The intake answered {answer.status_code}: {said.get('detail')}"
    raise CommandError(text, said.get("remedy") or "")


def _show(
    settings: Settings, receipt: Receipt, wait: bool, timeout_s: float, as_json: bool
) -> None:
    """Print a receipt; with `wait` once every store is through. Raises: CommandError."""
    deadline = time.monotonic() + timeout_s
    while wait and _pending(receipt):
        if time.monotonic() > deadline:
            raise CommandError(
                f"After {timeout_s:.0f} s still pending: {', '.join(_pending(receipt))}.",
                f"The order stands and is carried out; look again with:"
                f" {invocation()} user receipt {receipt.receipt_id}",
            )
        time.sleep(POLL_S)
        receipt = _ask(settings, "GET", f"/v1/receipts/{receipt.receipt_id}")
    if as_json:
        typer.echo(receipt.model_dump_json(indent=2))
        return
    Console(soft_wrap=True).print(receipt_table(receipt))


def _pending(receipt: Receipt) -> list[str]:
    return [line.store.value for line in receipt.stores if line.state is StoreState.PENDING]


def receipt_table(receipt: Receipt) -> Table:
    """A receipt as a table."""
    title = f"{receipt.kind} of {_minute(receipt.accepted_at)}  receipt {receipt.receipt_id}"
    view = Table(title=title, title_justify="left")
    for heading in ("store", "state", "since"):
        view.add_column(heading)
    view.add_column("removed", justify="right")
    for line in receipt.stores:
        since = "" if line.reported_at is None else _minute(line.reported_at)
        removed = "" if line.state is StoreState.PENDING else str(line.removed)
        view.add_row(line.store.value, _state(line), since, removed)
    return view


def _state(line: StoreReceipt) -> str:
    if line.state is StoreState.EXPIRES and line.expires_at is not None:
        return f"gone by {_minute(line.expires_at)}"
    return line.state.value


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
