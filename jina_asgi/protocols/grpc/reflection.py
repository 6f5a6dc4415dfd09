"""gRPC's optional reflection: the names of services, and the descriptions of their messages.

A Jina Flow first requests the services of an external Executor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from jina_asgi.protocols.grpc.messages import POOL, ReflectionRequest, ReflectionResponse
from jina_asgi.protocols.grpc.rpc import headers_of, refuse
from jina_asgi.protocols.protobuf import messages
from jina_asgi.protocols.service import Service

_NAME = "grpc.reflection.{}.ServerReflection"
_NOT_FOUND, _UNIMPLEMENTED = 5, 12


class Reflection:
    """Answers reflection requests about some services, in both versions of the protocol."""

    def __init__(self, services: Sequence[str], service: Service) -> None:
        self._services = sorted([*services, *map(_NAME.format, ReflectionRequest)])
        self._service = service

    def handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        """The methods by their full names."""
        return {
            f"/{_NAME.format(version)}/ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(self._of(version))
            for version in ReflectionRequest
        }

    def _of(self, version: str) -> Any:
        async def answer(_: Any, context: Any) -> None:
            try:
                await self._service.authenticate("/-/endpoints", headers_of(context))
            except Exception as error:  # noqa: BLE001  # sent to the client, and logged there
                await refuse(context, error, self._service)
            while (raw := await context.read()) is not grpc.aio.EOF:
                try:
                    asked = ReflectionRequest[version].FromString(raw)
                except DecodeError:
                    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not a ServerReflectionRequest")
                try:
                    await context.write(self._answer(asked, ReflectionResponse[version]()).SerializeToString())
                except grpc.aio.InternalError as error:
                    await refuse(context, error, self._service)

        return answer

    def _answer(self, asked: Any, answer: Any) -> Any:
        answer.valid_host = asked.host
        answer.original_request.CopyFrom(asked)
        kind = asked.WhichOneof("message_request")
        if kind == "list_services":
            for name in self._services:
                answer.list_services_response.service.add(name=name)
        elif kind in ("file_by_filename", "file_containing_symbol"):
            files = _files(kind, getattr(asked, kind))
            if files:
                answer.file_descriptor_response.file_descriptor_proto.extend(files)
            else:
                answer.error_response.error_code = _NOT_FOUND
                answer.error_response.error_message = f"no {kind.rpartition('_')[2]} of that name"
        else:
            answer.error_response.error_code = _UNIMPLEMENTED
            answer.error_response.error_message = "there are no extensions here"
        return answer


def _files(kind: str, name: str) -> list[bytes]:
    """The requested description, and those on which it depends."""
    for pool in (messages.POOL, POOL):
        try:
            find = pool.FindFileByName if kind == "file_by_filename" else pool.FindFileContainingSymbol
            pending, found = [find(name)], {}
        except KeyError:
            continue
        while pending:
            file = pending.pop()
            if file.name not in found:
                found[file.name] = bytes(file.serialized_pb)
                pending += file.dependencies
        return list(found.values())
    return []
