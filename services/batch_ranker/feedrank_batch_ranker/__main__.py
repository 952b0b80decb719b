"""`python -m feedrank_batch_ranker rank|publish --run DIR`, and `keep` beside the services."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import orjson
import pyarrow as pa
import typer
from feedrank_core.runtime.bundle_store import BundleError
from feedrank_core.runtime.logs import configure
from feedrank_core.runtime.metrics import Metrics
from feedrank_core.runtime.probes import probes
from feedrank_core.runtime.stopping import stopping_on_signals
from redis import RedisError

from feedrank_batch_ranker import app as rim
from feedrank_batch_ranker.errors import RankerError
from feedrank_batch_ranker.keeper import Keeper
from feedrank_batch_ranker.publish import publish as publish_bundle
from feedrank_batch_ranker.rank import bundle_of
from feedrank_batch_ranker.rank import rank as rank_users
from feedrank_batch_ranker.settings import Settings

NICENESS = 10
"""Feeds come first, also while everybody's candidates are written."""

app = typer.Typer(no_args_is_help=True, help=__doc__)
Run = Annotated[Path, typer.Option(help="Folder of the daily run; its bundle.json says which.")]


@app.command()
def rank(
    run: Run, restart: Annotated[bool, typer.Option(help="Ignore the checkpoint.")] = False
) -> None:
    """Index the run's bundle and write every user's candidates. Continues where it stopped."""

    def work(settings: Settings) -> dict[str, Any]:
        at, metrics = rim.build(settings), Metrics("batch_ranker")
        with probes(metrics, lambda: None, settings.host, settings.port):
            return rank_users(at.store, at.cache, at.users, run, settings, metrics, restart=restart)

    _answer(work)


@app.command()
def publish(run: Run) -> None:
    """Make the run's bundle the one that serves, and retire older candidates."""

    def work(settings: Settings) -> dict[str, Any]:
        at, metrics = rim.build(settings), Metrics("batch_ranker")
        with probes(metrics, lambda: None, settings.host, settings.port):
            return publish_bundle(at.store, at.cache, at.users, bundle_of(run), settings, metrics)

    _answer(work)


@app.command()
def keep() -> None:
    """Write candidates again wherever the cache loses them, until told to stop."""
    configure("batch_ranker")
    os.nice(NICENESS)
    stopping = stopping_on_signals()
    settings, metrics = Settings.at_start(), Metrics("batch_ranker")
    keeper = Keeper(rim.build(settings), settings, metrics)
    with probes(metrics, lambda: keeper.trouble, settings.host, settings.keeper_port):
        keeper.run(stopping)


def _answer(work: Callable[[Settings], dict[str, Any]]) -> None:
    configure("batch_ranker")
    try:
        print(orjson.dumps(work(Settings.at_start())).decode())
    except (RankerError, BundleError) as error:
        _fail(str(error))
    except pa.ArrowInvalid as error:
        _fail(f"the users table cannot be read ({error}); build the features again")
    except ImportError as error:
        _fail(f"{error}; install it or unset FEEDRANK_BATCH_RANKER_ENGINE")
    except RedisError as error:
        _fail(f"the cache does not answer ({error}); is it up? (FEEDRANK_CACHE_URL)")


def _fail(message: str) -> None:
    print(" ".join(message.split()), file=sys.stderr)
    raise SystemExit(1)


if __name__ == "__main__":
    app()
