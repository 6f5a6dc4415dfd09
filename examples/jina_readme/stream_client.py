"""Print the answer as it grows: python -m jina_asgi.compat stream_client.py"""

import asyncio

from jina import Client
from streaming import Piece, Question


async def main():
    client = Client(port=12345, asyncio=True)
    question = Question(prompt="The capital of France is", max_tokens=8)
    async for piece in client.stream_doc(on="/stream", inputs=question, return_type=Piece):
        print(repr(piece.generated_text))


asyncio.run(main())
