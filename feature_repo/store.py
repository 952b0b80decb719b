"""Opens the feature store of an installation: feature_store.yaml, as code."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from feast import FeatureStore, FeatureView, FileSource
from feast.repo_config import RepoConfig

from feature_repo.services import DEFINITIONS, ONLINE_VIEWS

PROJECT = "feedrank"
BEGINNING = datetime(1970, 1, 2, tzinfo=UTC)
"""Before any event; imported logs may be decades old."""


def open_store(home: Path, cache_url: str, *, registry_url: str | None = None) -> FeatureStore:
    """The store over the tables below `home`. Nothing is read or written yet.

    `registry_url` is an SQLAlchemy URL; without one the registry is a SQLite file in `home`.
    """
    if registry_url is None:
        folder = home / "feast"
        folder.mkdir(parents=True, exist_ok=True)
        registry_url = f"sqlite:///{folder / 'registry.db'}"
    return FeatureStore(config=repo_config(home, cache_url, registry_url))


def repo_config(home: Path, cache_url: str, registry_url: str) -> RepoConfig:
    """The settings of Feast; only a SQL registry serves reads of a view that materialises."""
    config: dict[str, Any] = {
        "project": PROJECT,
        "provider": "local",
        "registry": {
            "registry_type": "sql",
            "path": registry_url,
            "cache_ttl_seconds": 60,
            "serve_features_while_materializing": True,
        },
        "offline_store": {"type": "duckdb"},
        "online_store": {"type": "redis", "connection_string": connection_string(cache_url)},
        "entity_key_serialization_version": 3,
    }
    repo = RepoConfig(**config)
    repo.repo_path = home.absolute()
    return repo


def connection_string(url: str) -> str:
    """A redis URL in the form Feast's Redis store splits on commas.

    Raises: ValueError for a password that this form cannot carry.
    """
    parts = urlsplit(url)
    text = f"{parts.hostname}:{parts.port or 6379},db={parts.path.strip('/') or 0}"
    if parts.scheme == "rediss":
        text += ",ssl=true"
    if parts.username:
        text += f",username={unquote(parts.username)}"
    if parts.password:
        password = unquote(parts.password)
        if "," in password or password.isdigit():
            raise ValueError("cache_url: Feast cannot carry a password of digits or with a comma")
        text += f",password={password}"
    return text


def apply(store: FeatureStore) -> None:
    """Register every entity, view and service, with the tables of this home. Idempotent. Blocks."""
    store.apply(
        [_placed(definition, Path(str(store.config.repo_path))) for definition in DEFINITIONS]
    )


def materialise(store: FeatureStore, as_of: datetime) -> None:
    """Put each reader's latest values as of then online, view by view. Blocks."""
    for view in ONLINE_VIEWS:
        store.materialize(BEGINNING, as_of, feature_views=[view.name])


def _placed(definition: Any, home: Path) -> Any:
    """The definition with absolute paths: Feast's DuckDB reader resolves none."""
    if not isinstance(definition, FeatureView):
        return definition
    placed = copy.deepcopy(definition)
    pushed = getattr(placed.stream_source, "batch_source", None)
    for source in (placed.batch_source, pushed):
        if isinstance(source, FileSource):
            source.file_options.uri = str(home / source.path)
    return placed
