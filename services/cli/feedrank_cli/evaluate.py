"""`feedrank evaluate`: how good a bundle is beside popularity and item-kNN."""

from __future__ import annotations

from typing import Annotated, Any, cast

import typer
from feedrank_core.contracts.bundle import Part
from feedrank_core.runtime.bundle_store import Bundle, BundleError, BundleStore
from rich.console import Console
from rich.table import Table

from feedrank_cli.errors import CommandError
from feedrank_cli.invocation import invocation
from feedrank_cli.settings import load

CONTENDERS = {"two_tower": "two-tower", "popularity": "popularity", "item_knn": "item-kNN"}
WITH_INTERVAL = {"ndcg_at_10": "NDCG@10", "recall_at_20": "Recall@20", "auc": "AUC"}
PLAIN = {"coverage": "coverage", "novelty_bits": "novelty (bits)", "user_overlap": "overlap"}


def evaluate(
    bundle: Annotated[
        str | None, typer.Option(help="A bundle's id; the one that serves by default.")
    ] = None,
) -> None:
    """Print a bundle's metrics, measured on a slice of time after its training data.

    Beside popularity and item-kNN, with 95 % intervals by resampling the readers.

    For example:

        feedrank evaluate

        feedrank evaluate --bundle 20261120T030000-1a2b3c4d
    """
    opened, metrics = measured(BundleStore(load().place.bundles), bundle)
    if "two_tower" not in metrics:
        raise CommandError(
            f"bundle {opened.bundle_id} has no metrics: nobody acted in its later slice",
            f"send more events, then run `{invocation()} daily`",
        )
    console = Console()
    console.print(table(opened.bundle_id, metrics))
    if refit := opened.manifest.config.get("refit_epochs"):
        console.print(
            f"Measured before the refit over everything, this slice included (epochs: {refit})."
        )
    for baseline in ("popularity", "item_knn"):
        lead = metrics[f"lead_over_{baseline}"]
        console.print(
            f"NDCG@10 less that of {CONTENDERS[baseline]}: {lead['ndcg_at_10']:+.4f}"
            f" (95 % interval {lead['ndcg_at_10_low']:+.4f} to {lead['ndcg_at_10_high']:+.4f})"
        )


def measured(store: BundleStore, bundle_id: str | None) -> tuple[Bundle, dict[str, dict[str, Any]]]:
    """The named bundle, or the one that serves, or the newest, with its metrics.

    Of its files only the metrics are verified: nothing else is read.
    Raises: CommandError.
    """
    chosen = bundle_id or store.current_id() or (store.ids() or [None])[-1]
    if chosen is None:
        raise CommandError("there is no bundle yet", f"run `{invocation()} daily` first")
    try:
        opened = store.open(chosen, verify=False)
        opened.verify(Part.METRICS.value)
    except BundleError as error:
        raise CommandError(str(error)) from error
    return opened, cast(dict[str, dict[str, Any]], opened.json(Part.METRICS))


def table(bundle_id: str, metrics: dict[str, dict[str, Any]]) -> Table:
    """One row a contender; intervals hold 95 % of 2,000 resamples of the readers."""
    found = Table(title=f"bundle {bundle_id}, later slice of time, full catalogue")
    found.add_column("")
    for title in (*WITH_INTERVAL.values(), *PLAIN.values()):
        found.add_column(title, justify="right")
    for name, title in CONTENDERS.items():
        row = metrics[name]
        cells = [f"{row[m]:.4f} [{row[f'{m}_low']:.4f}, {row[f'{m}_high']:.4f}]"
                 if row[m] is not None else "-" for m in WITH_INTERVAL]  # fmt: skip
        cells = [cell.replace("[", r"\[") for cell in cells]
        found.add_row(title, *cells, *(f"{row[m]:.3f}" for m in PLAIN))
    return found
