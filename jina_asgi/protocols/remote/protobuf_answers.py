"""Requests and answers in Jina's protobuf, for the Clients and Runners of every transport."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jina_asgi.documents.codec import Codec
from jina_asgi.protocols.http.bodies import PROTOBUF
from jina_asgi.protocols.protobuf import requests
from jina_asgi.protocols.protobuf.requests import parameters_of
from jina_asgi.protocols.protobuf.statuses import raise_for
from jina_asgi.protocols.remote.transport import OutgoingRequest, ServerAnswer
from jina_asgi.types import Docs


def request_of(asked: OutgoingRequest) -> Any:
    """Builds the DataRequest of one call; raises as `requests.request` does."""
    header = asked.header
    return requests.request(
        header.get("exec_endpoint") or asked.endpoint,
        asked.docs,
        asked.parameters,
        request_id=header.get("request_id", ""),
        target_executor=header.get("target_executor", ""),
    )


def single_request_of(asked: OutgoingRequest) -> Any:
    """Builds the SingleDocumentRequest of one stream; raises as `requests.single` does."""
    header = asked.header
    return requests.single(
        header.get("exec_endpoint") or asked.endpoint,
        asked.docs,
        asked.parameters,
        request_id=header.get("request_id", ""),
    )


@dataclass(frozen=True, slots=True)
class ProtobufAnswer(ServerAnswer):
    """A server's answer whose docs are still protobuf."""

    message: Any = None

    @classmethod
    def of(cls, message: Any, *, heavy: bool = False) -> ProtobufAnswer:
        """Builds the answer from a protobuf message.

        Raises:
            The error that the message's status reports.
        """
        raise_for(message)
        routes = tuple(map(_route, message.routes))
        header = {"request_id": message.header.request_id}
        return cls([], PROTOBUF, parameters_of(message), header, routes, heavy=heavy, message=message)

    def docs(self, codec: Codec) -> Docs:
        return requests.answered(self.message, codec).docs

    def values(self) -> list[Any]:
        return requests.values(self.message)


def _route(route: Any) -> dict[str, Any]:
    """Converts a route to the form that Jina's clients see over HTTP."""
    return {
        "executor": route.executor,
        "startTime": route.start_time.ToJsonString(),
        "endTime": route.end_time.ToJsonString(),
        "status": {"code": "ERROR" if route.status.code else "SUCCESS", "description": route.status.description},
    }
