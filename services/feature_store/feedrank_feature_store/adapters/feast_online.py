"""Feast's online store: readers are written in Feast's own format of Redis, by its definitions.

`FeatureStore.push` takes a DataFrame: 12 ms for one reader and .55 ms for each of a thousand. The
provider's `online_write_batch` hashes the name of each feature anew for each reader: .2 ms. Here a
reader is one HSET whose field names are known from the start: .06 ms. The tests read it all back
by Feast's SDK.

Source of the format: docs/specs/online_store_format.md in Feast's repository.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from feedrank_feature_store.ports import OnlineRow, OnlineStoreError

JOIN_KEY = "user_id"
VIEWS = {"counters": "user_counters", "history": "user_history", "profile": "user_profile"}
"""Feast's view of each part of an OnlineRow."""
_DOUBLE = struct.Struct("<d")
Encode = Callable[[Any], bytes]


class _View(NamedTuple):
    """A view's field for when it was written, and of each feature its name, field and encoding."""

    written_at: bytes
    features: list[tuple[str, bytes, Encode]]


class FeastOnline:
    """Registers the definitions when it is made. Blocks for the six seconds of Feast's import."""

    def __init__(self, home: Path, cache_url: str) -> None:
        from feature_repo.store import apply, open_store

        store = open_store(home, cache_url)
        apply(store)
        # After the repository, which imports Feast in its own way.
        from feast.infra.online_stores.helpers import _redis_key
        from feast.infra.provider import get_provider

        config = store.config
        self._key_of = lambda user_id: _redis_key(
            config.project, _entity_key(user_id), config.entity_key_serialization_version
        )
        online_store: Any = get_provider(config).online_store  # pyright: ignore[reportAttributeAccessIssue]
        # Its own way is to try again for ten seconds, in which nothing is said of the trouble.
        self._client: Any = online_store._get_client(config.online_store)
        self._client.set_retry(Retry(NoBackoff(), 0))
        self._views = {
            part: _fields(store.get_feature_view(name), config) for part, name in VIEWS.items()
        }

    def write(self, rows: Sequence[OnlineRow], at: datetime) -> None:
        """Replace what is held of these readers. Raises: OnlineStoreError."""
        written_at = _timestamp(at)
        with self._client.pipeline(transaction=False) as pipe:
            for row in rows:
                mapping: dict[bytes, bytes] = {}
                for part, view in self._views.items():
                    values = getattr(row, part)
                    if values is not None:
                        mapping[view.written_at] = written_at
                        for name, field, encode in view.features:
                            mapping[field] = encode(values[name])
                if mapping:
                    pipe.hset(self._key_of(row.user_id), mapping=mapping)
            self._checked(pipe.execute)

    def forget(self, user_ids: Sequence[str]) -> None:
        """Delete all that is held of these readers: Feast has no call for one entity."""
        if user_ids:
            self._checked(self._client.delete, *map(self._key_of, user_ids))

    def _checked(self, write: Callable[..., Any], *arguments: Any) -> None:
        try:
            write(*arguments)
        except redis.RedisError as error:
            raise OnlineStoreError(f"Feast's online store did not take a write: {error}") from error


def _fields(view: Any, config: Any) -> _View:
    from feast.infra.online_stores.helpers import _mmh3
    from feast.infra.online_stores.redis import _versioned_fv_name

    name = _versioned_fv_name(view, config)
    features = [(f.name, _mmh3(f"{name}:{f.name}"), _encoding(f.dtype)) for f in view.features]
    return _View(f"_ts:{name}".encode(), features)


def _timestamp(at: datetime) -> bytes:
    from google.protobuf.timestamp_pb2 import Timestamp

    stamp = Timestamp()
    stamp.FromDatetime(at)
    return stamp.SerializeToString()


def _entity_key(user_id: str) -> Any:
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    return EntityKey(join_keys=[JOIN_KEY], entity_values=[Value(string_val=user_id)])


def _encoding(dtype: Any) -> Encode:
    """How Feast writes a value of this type: a message with one field. Instants are in seconds."""
    from feast.protos.feast.types import Value_pb2 as v
    from feast.value_type import ValueType

    # All of a double's message but its eight bytes.
    head = v.Value(double_val=0.0).SerializeToString()[: -_DOUBLE.size]
    makers: dict[ValueType, Callable[[Any], Any]] = {
        ValueType.STRING: lambda x: v.Value(string_val=x),
        ValueType.INT64: lambda x: v.Value(int64_val=x),
        ValueType.DOUBLE_LIST: lambda x: v.Value(double_list_val=v.DoubleList(val=x)),
        ValueType.INT64_LIST: lambda x: v.Value(int64_list_val=v.Int64List(val=x)),
        ValueType.STRING_LIST: lambda x: v.Value(string_list_val=v.StringList(val=x)),
        ValueType.UNIX_TIMESTAMP_LIST: lambda x: v.Value(
            unix_timestamp_list_val=v.Int64List(val=[int(t.timestamp()) for t in x])
        ),
    }
    kind = dtype.to_value_type()
    if kind == ValueType.DOUBLE:
        return lambda x: head + _DOUBLE.pack(x)
    make = makers[kind]
    return lambda x: make(x).SerializeToString()
