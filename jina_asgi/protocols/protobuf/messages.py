"""The message classes of Jina's protocol, compiled by protoc from the `.proto` files beside this one.

They have a descriptor pool of their own, so that docarray's and Jina's generated code can be in the same process.
After a change: `protoc -I. --descriptor_set_out=descriptors.binpb docarray.proto jina.proto jina_asgi.proto`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, empty_pb2, struct_pb2, timestamp_pb2
from google.protobuf.message_factory import GetMessageClass

#: The descriptions of all messages and services, for gRPC's reflection.
POOL = descriptor_pool.DescriptorPool()


def _fill(pool: descriptor_pool.DescriptorPool) -> None:
    for known in (empty_pb2, struct_pb2, timestamp_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    described = descriptor_pb2.FileDescriptorSet.FromString(Path(__file__).with_name("descriptors.binpb").read_bytes())
    for file in described.file:
        pool.AddSerializedFile(file.SerializeToString())


def _message(name: str) -> Any:  # its fields are known at run time only
    return GetMessageClass(POOL.FindMessageTypeByName(name))


_fill(POOL)

Empty, Struct, Timestamp = map(
    _message, ("google.protobuf.Empty", "google.protobuf.Struct", "google.protobuf.Timestamp")
)
Value = _message("google.protobuf.Value")

DenseNdArrayProto, NdArrayProto = map(_message, ("docarray.DenseNdArrayProto", "docarray.NdArrayProto"))
NodeProto, DocProto, DocListProto = map(_message, ("docarray.NodeProto", "docarray.DocProto", "docarray.DocListProto"))
ListOfAnyProto, DictOfAnyProto = map(_message, ("docarray.ListOfAnyProto", "docarray.DictOfAnyProto"))
DocVecProto = _message("docarray.DocVecProto")

HeaderProto, StatusProto, RouteProto = map(_message, ("jina.HeaderProto", "jina.StatusProto", "jina.RouteProto"))
DataRequestProto, DataRequestListProto = map(_message, ("jina.DataRequestProto", "jina.DataRequestListProto"))
SingleDocumentRequestProto = _message("jina.SingleDocumentRequestProto")
DataRequestProtoWoData = _message("jina.DataRequestProtoWoData")
EndpointsProto, JinaInfoProto = map(_message, ("jina.EndpointsProto", "jina.JinaInfoProto"))

#: The same requests with their docs as bytes, which servers and clients read and write.
DataRequest, DataRequestList = map(_message, ("jina_asgi.DataRequest", "jina_asgi.DataRequestList"))
SingleDocumentRequest = _message("jina_asgi.SingleDocumentRequest")

#: The dry run with which a Jina gateway checks its Executors; it calls no method of the user.
DRY_RUN = "/_jina_dry_run_"
SUCCESS, ERROR = 0, 1  # StatusProto's code
