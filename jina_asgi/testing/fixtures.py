"""pytest fixtures: put `pytest_plugins = ["jina_asgi.testing.fixtures"]` into your conftest.py."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest_asyncio
from starlette.types import ASGIApp

from jina_asgi.testing.transport import client


@pytest_asyncio.fixture
async def asgi_client() -> AsyncIterator[Callable[[ASGIApp], Any]]:
    """Makes clients of apps: `http = await asgi_client(app)`; each app's lifespan ends with the test."""
    async with AsyncExitStack() as stack:

        async def make(app: ASGIApp, **options: Any) -> httpx.AsyncClient:
            return await stack.enter_async_context(client(app, **options))

        yield make
