"""How to test an app of your own: no server, no sockets, streams that stream. pytest test_my_app.py"""

import asyncio
from typing import Any

from fastapi_auth import app as words
from starlette_app import app as numbers

from jina_asgi.testing import client


def ask(app: Any, path: str, **options: Any) -> Any:
    async def answer() -> Any:
        async with client(app) as http:
            return await http.post(path, **options)

    return asyncio.run(answer())


def test_words_are_counted() -> None:
    answer = ask(words, "/text/count", json={"data": {"text": "a b c"}}, headers={"Authorization": "Bearer secret"})
    assert answer.json()["data"] == [{"words": 3}]


def test_strangers_are_refused() -> None:
    assert ask(words, "/text/count", json={"data": {"text": "a"}}).status_code in (401, 403)


def test_a_mean_is_a_mean() -> None:
    answer = ask(numbers, "/statistics/mean", json={"data": [{"id": "1", "values": [1, 2, 6]}]})
    assert answer.json()["data"] == [{"id": "1", "value": 3.0}]
