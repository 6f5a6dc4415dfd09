"""All settings classes; each option is declared once, here. What the options do is implemented elsewhere."""

from jina_asgi.settings.application import AppSettings, Auth, Limits
from jina_asgi.settings.base import MIB
from jina_asgi.settings.batching import BatchingSettings
from jina_asgi.settings.client import ClientSettings
from jina_asgi.settings.deployment import AROUND, DeploymentSettings, FlowSettings
from jina_asgi.settings.grpc import Bind, GrpcSettings
from jina_asgi.settings.serving import ServingSettings

__all__ = [
    "AROUND",
    "MIB",
    "AppSettings",
    "Auth",
    "BatchingSettings",
    "Bind",
    "ClientSettings",
    "DeploymentSettings",
    "FlowSettings",
    "GrpcSettings",
    "Limits",
    "ServingSettings",
]
