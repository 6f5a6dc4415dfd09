"""What a Client and a Runner of ours say and are told in Jina's protobuf, whatever carries the messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jina_asgi.documents.codec import Codec
from jina_asgi.protocols.http.bodies import PROTOBUF
from jina_asgi.protocols.protobuf import requests
from jina_asgi.protocols.remote.server import Answer, Asked
from jina_asgi.types import Docs


def request_of(asked: Asked) -> Any:
    """The DataRequest of one call; raises as `requests.request` does."""
    header = asked.header
    return requests.request(
        header.get("exec_endpoint") or asked.endpoint,
        asked.docs,
        asked.parameters,
        request_id=header.get("request_id", ""),
        target_executor=header.get("target_executor", ""),
    )


@dataclass(frozen=True, slots=True)
class ProtobufAnswer(Answer):
    """An answer whose docs are still protobuf."""

    message: Any = None

    @classmethod
    def of(cls, message: Any) -> ProtobufAnswer:
        """The answer that a message is.

        Raises:
            What its status says.
        """
        requests.raise_for(message)
        routes = tuple(map(_route, message.routes))
        header = {"request_id": message.header.request_id}
        return cls([], PROTOBUF, requests.parameters_of(message), header, routes, message=message)

    def docs(self, codec: Codec) -> Docs:
        return requests.answered(self.message, codec).docs

    def values(self) -> list[Any]:
        return requests.values(self.message)


def _route(route: Any) -> dict[str, Any]:
    """A route as Jina's clients over HTTP see it."""
    return {
        "executor": route.executor,
        "startTime": route.start_time.ToJsonString(),
        "endTime": route.end_time.ToJsonString(),
        "status": {"code": "ERROR" if route.status.code else "SUCCESS", "description": route.status.description},
    }
