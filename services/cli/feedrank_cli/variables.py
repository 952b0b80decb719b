"""Every `FEEDRANK_*` variable that means something, and which of those given do not."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from feedrank_core.runtime.settings import InstallationSettings, variable_of
from pydantic_settings import BaseSettings

from feedrank_cli.settings import Settings
from feedrank_cli.supervision import MARK

PREFIX = "FEEDRANK_"
OTHERS = frozenset({MARK, "FEEDRANK_MOVIELENS"})
"""What no settings hold: the mark of our processes, and the data of a measurement."""


def owners() -> dict[str, type[BaseSettings]]:
    """Who reads variables, by the title of their section."""
    # Only who asks waits for them: Kafka's library comes with its settings.
    from feedrank_batch_ranker import settings as batch_ranker
    from feedrank_core.runtime.bus_kafka_connection import Security
    from feedrank_feature_store import settings as feature_store
    from feedrank_gateway import settings as gateway
    from feedrank_ingestion import settings as ingestion
    from feedrank_trainer import settings as trainer

    return {
        "Every process": InstallationSettings,
        "Command line": Settings,
        "Gateway": gateway.Settings,
        "Ingestion": ingestion.Settings,
        "Feature store": feature_store.Settings,
        "Trainer": trainer.Settings,
        "Batch ranker": batch_ranker.Settings,
        "Clients of Kafka": Security,
    }


def unknown(names: Iterable[str]) -> dict[str, str | None]:
    """Of the names given those of ours that nobody reads, with the nearest that somebody does."""
    own = variables_of(Settings) | OTHERS
    doubted = {n for n in names if n.upper().startswith(PREFIX) and n.upper() not in own}
    if not doubted:
        return {}
    known = own.union(*map(variables_of, owners().values()))
    return {
        name: next(iter(get_close_matches(name.upper(), known, n=1)), None)
        for name in sorted(doubted)
        if name.upper() not in known
    }


def variables_of(owner: type[BaseSettings]) -> set[str]:
    """The variables of these settings."""
    return {variable_of(owner, name) for name in owner.model_fields}
