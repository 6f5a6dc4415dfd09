"""The messages of health checks and of reflection, compiled by protoc from the `.proto` files beside this one.

They have a descriptor pool of their own, like those of Jina. After a change:
`protoc -I. --descriptor_set_out=descriptors.binpb health.proto reflection_v1.proto reflection_v1alpha.proto`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.message_factory import GetMessageClass

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
