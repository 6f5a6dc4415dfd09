"""What a server says of itself over gRPC: its endpoints as Jina's EndpointsProto, and its health, unary and watched.

The messages of health checks and of reflection, compiled by protoc from the `.proto` files beside this one.

They have a descriptor pool of their own, like those of Jina. After a change:
`protoc -I. --descriptor_set_out=descriptors.binpb health.proto reflection_v1.proto reflection_v1alpha.proto`.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from jina_asgi.concurrency.lifecycle import health_signal
from jina_asgi.protocols.grpc.rpc import refuse
from jina_asgi.protocols.protobuf.messages import DRY_RUN, EndpointsProto
from jina_asgi.protocols.service import Service
from jina_asgi.types import Endpoint, EndpointKind, Field, ParametersSchema, Schema

POOL = descriptor_pool.DescriptorPool()


def _fill() -> None:
    described = descriptor_pb2.FileDescriptorSet.FromString(Path(__file__).with_name("descriptors.binpb").read_bytes())
    for file in described.file:
        POOL.AddSerializedFile(file.SerializeToString())


def _message(name: str) -> Any:  # its fields are known at run time only
    return GetMessageClass(POOL.FindMessageTypeByName(name))


_fill()

HealthRequest, HealthResponse = map(
    _message, ("grpc.health.v1.HealthCheckRequest", "grpc.health.v1.HealthCheckResponse")
)
#: HealthResponse's status.
SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3

#: By version of the protocol; both have the same fields.
ReflectionRequest = {
    version: _message(f"grpc.reflection.{version}.ServerReflectionRequest") for version in ("v1", "v1alpha")
}
ReflectionResponse = {
    version: _message(f"grpc.reflection.{version}.ServerReflectionResponse") for version in ("v1", "v1alpha")
}


#: The method that describes endpoints to our own clients: JSON, and exact where Jina's discovery is not.
ENDPOINTS = "/jina_asgi.Endpoints/describe"


def described(endpoints: Mapping[str, Endpoint]) -> Any:
    """The EndpointsProto of some endpoints.

    A Jina gateway makes classes of the schemas, and compares them with those of an Executor's neighbours, also for the dry
    run with which it checks an Executor.
    """
    schemas = {name: _schemas(endpoint) for name, endpoint in endpoints.items()}
    schemas[DRY_RUN.strip("/")] = _endpoint_schemas(_legacy(), _legacy(), "batch", None)
    message = EndpointsProto(endpoints=list(schemas))
    message.schemas.update(schemas)
    return message


def endpoints_of(message: Any) -> dict[str, Endpoint]:
    """The endpoints in an EndpointsProto of an Executor, or of a Flow's gateway.

    It has the documents' JSON Schemas, and not their encoded types: so every field accepts any value here, and the server
    validates.
    """
    schemas = MessageToDict(message.schemas)
    names = [name for name in message.endpoints if name.strip("/") != DRY_RUN.strip("/")]
    return {name: _endpoint(name, _mapping(schemas.get(name))) for name in names if name.startswith("/")}


def _endpoint(name: str, said: Mapping[str, Any]) -> Endpoint:
    kind: EndpointKind = "batch"
    if said.get("is_generator"):
        kind = "stream"
    elif said.get("is_singleton_doc"):
        kind = "single"
    stem = name.strip("/").replace("/", "_")
    return Endpoint(
        name=name,
        kind=kind,
        input=_plan(f"{stem}_input", _mapping(said.get("input"))),
        output=_plan(f"{stem}_output", _mapping(said.get("output"))),
    )


def _plan(stem: str, said: Mapping[str, Any]) -> Schema:
    """The plan of the documents of a JSON Schema, or of `{"name": ..., "model": <schema>}`."""
    schema = _mapping(said.get("model")) or said
    properties = _mapping(schema.get("properties"))
    if not properties:
        return Schema(stem, {stem: ()}, {"type": "object", "title": stem, "additionalProperties": True})
    name = str(said.get("name") or schema.get("title") or stem)
    fields = tuple(Field(key, "json", nullable=True, required=False) for key in properties)
    return Schema(name, {name: fields}, dict(schema))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _schemas(endpoint: Endpoint) -> dict[str, Any]:
    return _endpoint_schemas(_document(endpoint.input), _document(endpoint.output), endpoint.kind, endpoint.parameters)


def _endpoint_schemas(
    takes: dict[str, Any], gives: dict[str, Any], kind: EndpointKind, parameters: ParametersSchema | None
) -> dict[str, Any]:
    model = None if parameters is None else dict(parameters.json_schema)
    return {
        "input": takes,
        "output": gives,
        "is_generator": kind == "stream",
        "is_singleton_doc": kind != "batch",
        "parameters": {"name": None if parameters is None else parameters.name, "model": model},
    }


def _document(schema: Schema) -> dict[str, Any]:
    return _legacy() if schema.name == "LegacyDocument" else {"name": schema.name, "model": dict(schema.json_schema)}


@functools.cache
def _legacy() -> dict[str, Any]:
    """The schema of untyped documents, as Jina's gateways know it."""
    from jina_asgi.documents.schemas import legacy_schema_of_jina  # docarray is imported by the first request

    return {"name": "LegacyDocumentJina", "model": legacy_schema_of_jina()}


SERVICE = "grpc.health.v1.Health"


class Health:
    """The health of some gRPC services, which is the same for all."""

    def __init__(self, service: Service, services: Collection[str]) -> None:
        self._service, self._services = service, frozenset(("", *services))
        self._changed, self._ending = asyncio.Event(), False
        self._stop_watching: Callable[[], None] = lambda: None

    def handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        """The methods by their full names."""
        return {
            f"/{SERVICE}/Check": grpc.unary_unary_rpc_method_handler(self._check),
            f"/{SERVICE}/Watch": grpc.unary_stream_rpc_method_handler(self._watch),
        }

    def begin(self) -> None:
        """Called when serving begins, on this loop."""
        self._changed, self._ending = asyncio.Event(), False
        loop = asyncio.get_running_loop()

        def notify() -> None:
            with suppress(RuntimeError):  # that loop is closed, and no RPC is on it
                loop.call_soon_threadsafe(self._notify)

        self._stop_watching = health_signal.watch(notify)

    def end(self) -> None:
        """Called when serving ends: watchers are notified at once, and their RPCs end."""
        self._stop_watching()
        self._ending = True
        self._notify()

    def _notify(self) -> None:
        """Wake the watchers, who look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def _check(self, raw: bytes, context: Any) -> bytes:
        self._service.start()
        service = await _service(raw, context)
        if service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {service[:200]!r}")
        return bytes(HealthResponse(status=self._status()).SerializeToString())

    async def _watch(self, raw: bytes, context: Any) -> None:
        service = await _service(raw, context)
        sent = 0
        while True:
            changed = self._changed  # the one of before this look
            status = self._status() if service in self._services else SERVICE_UNKNOWN
            if status != sent:
                sent = status
                try:
                    await context.write(HealthResponse(status=status).SerializeToString())
                except grpc.aio.InternalError as error:
                    await refuse(context, error, self._service)
            if self._ending:
                return
            await changed.wait()

    def _status(self) -> int:
        return NOT_SERVING if self._ending or self._service.unhealthy_reason() else SERVING


async def _service(raw: bytes, context: Any) -> str:
    try:
        return str(HealthRequest.FromString(raw).service)
    except DecodeError:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not a HealthCheckRequest")
        raise
