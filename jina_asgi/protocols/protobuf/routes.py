"""The routes of an answer, which say what ran when: written by hand, as every answer has them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from jina_asgi.protocols.protobuf.messages import ERROR, StatusProto
from jina_asgi.protocols.protobuf.node_writer import framed, varint
from jina_asgi.types import Step


def written(trail: Sequence[Step]) -> bytes:
    """A RouteProto for each step, as fields of a DataRequestProto.

    The first is the gateway's, as Jina's routes have it: that is a Flow, which is the last step of its own trail, or what
    is around a Deployment.
    """
    if not trail:
        return b""
    whole = trail[-1]
    span = _span(whole)
    routes = [_name("gateway") + span]
    for step in trail[:-1] or trail:
        route = _name(step.name) + (span if step is whole else _span(step))
        routes.append(route if step.error is None else route + _failed(step.error))
    return b"".join([b"\x1a" + varint(len(route)) + route for route in routes])


def _span(step: Step) -> bytes:
    """The Timestamps of a step, which has seconds since the epoch."""
    first, last = int(step.start), int(step.end)
    start = _seconds(first) + varint(int((step.start - first) * 1e9))
    end = _seconds(last) + varint(int((step.end - last) * 1e9))
    return b"".join((b"\x12", varint(len(start)), start, b"\x1a", varint(len(end)), end))


@lru_cache(maxsize=16)
def _seconds(seconds: int) -> bytes:
    return b"\x08" + varint(seconds) + b"\x10"


@lru_cache(maxsize=1024)
def _name(name: str) -> bytes:
    return framed(b"\x0a", name.encode())


@lru_cache(maxsize=1024)
def _failed(error: str) -> bytes:
    status = StatusProto(code=ERROR)
    status.exception.name = error
    return framed(b"\x22", status.SerializeToString())
