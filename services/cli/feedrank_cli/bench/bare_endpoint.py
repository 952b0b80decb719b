"""The floor of `bench cached_feed`: a bare FastAPI endpoint that makes one Redis GET."""

from __future__ import annotations

import os

from fastapi import FastAPI, Response
from feedrank_core.runtime.redis_clients import cache_client

KEY = "bare:{user}"
"""A finished answer as large as a feed's."""


def create() -> FastAPI:
    """The least that can answer a feed: what is in the cache, as it is."""
    app = FastAPI()
    redis = cache_client(os.environ["FEEDRANK_CACHE_URL"])
    redis.connection_pool.max_connections = 1024

    @app.get("/v1/users/{user_id}/feed")
    async def feed(user_id: str) -> Response:
        return Response(await redis.get(KEY.format(user=user_id)), media_type="application/json")

    @app.get("/readyz")
    async def readyz() -> Response:
        return Response(b"{}")

    return app
