"""Exports spans by OTLP where the host has set no provider: one exporter for each receiver, shared by all services."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

from jina_asgi.errors import DefinitionError

_RATIO = re.compile(r"(?:ParentBased{root:)?TraceIdRatioBased{([-+.e\d]+)}")
_lock = threading.Lock()
_processors: dict[tuple[str | None, int | None], BatchSpanProcessor | None] = {}
_providers: dict[tuple[Any, ...], ExportingProvider] = {}


class ExportingProvider(TracerProvider):
    """A provider of ours.

    Attributes:
        bound: the traces are recorded whose id has smaller lower 64 bits; None: the sampler has another rule.
        ids: makes the ids of spans.
    """

    def __init__(self, resource: Resource) -> None:
        self.ids = ChosenIds()
        super().__init__(resource=resource, id_generator=self.ids)
        ratio = _RATIO.match(self.sampler.get_description())
        self.bound = None if ratio is None else round(float(ratio[1]) * 2**64)


class ChosenIds(RandomIdGenerator):
    """Random ids, but for a trace whose id has been chosen in this thread."""

    def __init__(self) -> None:
        self._next = threading.local()

    def choose(self, trace: int) -> None:
        """Choose the id of the next trace."""
        self._next.trace = trace

    def generate_trace_id(self) -> int:
        chosen: int | None = vars(self._next).pop("trace", None)
        return super().generate_trace_id() if chosen is None else chosen


def exporting_provider(
    service: str, host: str | None, port: int | None, attributes: Mapping[str, Any]
) -> ExportingProvider:
    """The provider of a service, which exports to a receiver; OpenTelemetry's environment variables give the rest.

    Raises:
        DefinitionError: they name a protocol or an exporter that is not known.
    """
    key = (service, host, port, *sorted(attributes.items()))
    with _lock:
        if key not in _providers:
            name = os.environ.get("OTEL_SERVICE_NAME") or service
            provider = ExportingProvider(Resource.create({**attributes, "service.name": name}))
            if (processor := _processor(host, port)) is not None:
                provider.add_span_processor(processor)
            _providers[key] = provider
        return _providers[key]


def _processor(host: str | None, port: int | None) -> BatchSpanProcessor | None:
    if (host, port) not in _processors:
        exporter = _exporter(host, port)
        _processors[host, port] = None if exporter is None else BatchSpanProcessor(exporter)
    return _processors[host, port]


def _exporter(host: str | None, port: int | None) -> SpanExporter | None:
    named = os.environ.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower()
    if named == "none":
        return None
    if named == "console":
        return ConsoleSpanExporter()
    if named != "otlp":
        raise DefinitionError(f"OTEL_TRACES_EXPORTER={named!r}: expected otlp, console or none")
    general = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", general)
    named_here = host is not None or port is not None
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

        if not named_here:
            return GrpcExporter()
        return GrpcExporter(endpoint=f"http://{host or 'localhost'}:{port or 4317}", insecure=True)
    if protocol == "http/protobuf":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

        if not named_here:
            return HttpExporter()
        return HttpExporter(endpoint=f"http://{host or 'localhost'}:{port or 4318}/v1/traces")
    raise DefinitionError(f"the OTLP protocol {protocol!r}: expected grpc or http/protobuf")
