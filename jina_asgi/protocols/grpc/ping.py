"""Checks once whether a server can answer, from a program without an event loop."""

from __future__ import annotations

import grpc
from google.protobuf.message import DecodeError

from jina_asgi.protocols.grpc.messages import SERVING, HealthRequest, HealthResponse
from jina_asgi.protocols.protobuf.messages import SUCCESS, StatusProto

_HEALTH = "/grpc.health.v1.Health/Check"
_DRY_RUN = "/jina.JinaGatewayDryRunRPC/dry_run"


def problem(target: str, *, whole: bool, timeout: float, tls: bool = False) -> str:
    """Why a server cannot answer; "" if it can.

    Args:
        target: "host:port".
        whole: check a whole Flow, as Jina's clients do; else the server's own health.
        timeout: in seconds.
        tls: encrypt, and trust gRPC's own CAs.
    """
    credentials = grpc.ssl_channel_credentials() if tls else None
    opened = grpc.insecure_channel(target) if credentials is None else grpc.secure_channel(target, credentials)
    with opened as channel:
        try:
            if whole:
                status = StatusProto.FromString(channel.unary_unary(_DRY_RUN)(b"", timeout=timeout))
                return "" if status.code == SUCCESS else str(status.description or "it says that it is not ready")
            raw = channel.unary_unary(_HEALTH)(HealthRequest().SerializeToString(), timeout=timeout)
            return "" if HealthResponse.FromString(raw).status == SERVING else "it says that it is not serving"
        except grpc.RpcError as error:
            return f"{error.code().name}: {error.details()}"
        except DecodeError as error:
            return f"it answered what is no message of this protocol: {error}"
