"""The options of tracing, which a Deployment, a Flow, a JinaASGI and a Client have alike."""

from __future__ import annotations

from pydantic import Field

from jina_asgi.settings.base import Settings


class TracingSettings(Settings):
    """Jina's options of tracing by OpenTelemetry."""

    tracing: bool = Field(False, description="record OpenTelemetry spans (extra `otel`), and pass on their context")
    traces_exporter_host: str | None = Field(
        None, description="the host of the OTLP receiver; None: by OpenTelemetry's environment variables"
    )
    traces_exporter_port: int | None = Field(
        None, ge=1, le=65535, description="the port of the OTLP receiver; None: 4317, or 4318 over HTTP"
    )
