"""The baselines, on uvicorn: what a careful author writes by hand with no library. serve_starlette.py PORT ROUTE."""

import asyncio
import json
import sys
import uuid
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from work import DIM, TOKENS, token


class Text(BaseModel):
    text: str


class Header(BaseModel):
    request_id: str
    target_executor: str = ""


class Body(BaseModel):
    data: list[Text]
    parameters: dict[str, Any] = {}
    header: Header | None = None


class Answer(BaseModel):
    data: list[Text]
    parameters: dict[str, Any]
    header: Header


async def echo(request: Request) -> Response:
    body = Body.model_validate_json(await request.body())
    header = body.header or Header(request_id=uuid.uuid4().hex)
    answer = Answer(data=body.data, parameters=body.parameters, header=header)
    return Response(answer.model_dump_json(), media_type="application/json")


def fastapi() -> FastAPI:
    """The same as a route of FastAPI's, with the documents' model as its own."""
    app = FastAPI()

    @app.post("/run")
    async def run(body: Body) -> Answer:
        header = body.header or Header(request_id=uuid.uuid4().hex)
        return Answer(data=body.data, parameters=body.parameters, header=header)

    return app


async def sse(request: Request) -> Response:
    """A bare EventSourceResponse: no validation, and nothing but the event's two fields."""

    async def events() -> AsyncIterator[dict[str, str]]:
        for i in range(TOKENS):
            yield {"event": "update", "data": json.dumps({"text": token(i)})}
            await asyncio.sleep(0)

    return EventSourceResponse(events())


async def raw(request: Request) -> Response:
    """A StreamingResponse of the same frames, put together by hand: as little as Starlette can do."""

    async def events() -> AsyncIterator[str]:
        for i in range(TOKENS):
            yield "event: update\r\ndata: " + json.dumps({"text": token(i)}) + "\r\n\r\n"
            await asyncio.sleep(0)

    return StreamingResponse(events(), media_type="text/event-stream")


async def websocket(socket: WebSocket) -> None:
    """The events of our JSON WebSocket, as little as Starlette can do: no validation, one call after another."""
    await socket.accept()
    try:
        while True:
            asked = json.loads(await socket.receive_text())
            header = {"request_id": uuid.uuid4().hex, "target_executor": ""}
            answer = {"id": asked["id"], "event": "data", "data": asked["data"], "parameters": {}, "header": header}
            await socket.send_text(json.dumps(answer))
            await socket.send_text(json.dumps({"id": asked["id"], "event": "end"}))
    except WebSocketDisconnect:
        return


async def websocket_checked(socket: WebSocket) -> None:
    """The same with the validation that `echo` has."""
    await socket.accept()
    try:
        while True:
            raw = await socket.receive_text()
            asked, body = json.loads(raw), Body.model_validate_json(raw)
            header = Header(request_id=uuid.uuid4().hex)
            answer = Answer(data=body.data, parameters=body.parameters, header=header).model_dump()
            await socket.send_text(json.dumps({"id": asked["id"], "event": "data", **answer}))
            await socket.send_text(json.dumps({"id": asked["id"], "event": "end"}))
    except WebSocketDisconnect:
        return


async def vectors(request: Request) -> Response:
    docs = (await request.json())["data"]
    doubled = np.array([doc["vector"] for doc in docs], np.float32) * 2
    return JSONResponse({"data": [{"vector": vector} for vector in doubled.tolist()]})


async def same_bytes(request: Request) -> Response:
    return Response(await request.body())


async def doubled_bytes(request: Request) -> Response:
    vectors = np.frombuffer(await request.body(), np.float32).reshape(-1, DIM) * 2
    return Response(vectors.tobytes())


ROUTES = {route.__name__: route for route in (echo, sse, raw, vectors, same_bytes, doubled_bytes)}

SOCKETS = {route.__name__: route for route in (websocket, websocket_checked)}

if __name__ == "__main__":
    port, name = sys.argv[1:]
    routes: list[BaseRoute] = [Route("/run", ROUTES.get(name, echo), methods=["POST"])]
    if name in SOCKETS:
        routes.append(WebSocketRoute("/-/ws", SOCKETS[name]))
    app = fastapi() if name == "fastapi" else Starlette(routes=routes)
    uvicorn.run(app, port=int(port), log_level="warning", access_log=False)
