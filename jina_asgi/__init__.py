"""Jina's idea as an embeddable ASGI plugin: Executors as routers inside your own app."""

from jina_asgi.clients.client import Client
from jina_asgi.documents.doclist_subscript import mend_now_or_on_import as _mend_doc_lists
from jina_asgi.documents.upload_files import UploadedPath
from jina_asgi.errors import (
    BatchFailed,
    DeadlineExceeded,
    DefinitionError,
    ExecutorError,
    ExecutorHTTPError,
    ExecutorInputError,
    InvalidDocs,
    InvalidRequest,
    JinaASGIError,
    NotReady,
    Overloaded,
    ReplicaDied,
    TooLarge,
    Unauthenticated,
    Unavailable,
    UnknownEndpoint,
    UnsupportedMedia,
)
from jina_asgi.executors.batching import dynamic_batching
from jina_asgi.executors.decorators import monitor
from jina_asgi.executors.executor import Executor, requests
from jina_asgi.executors.standalone import ByItself as _ByItself
from jina_asgi.runners.batching.function import DynamicBatching
from jina_asgi.serving.asgi import GRPCSidecar, JinaASGI, mount
from jina_asgi.serving.deployment import Deployment, ReplicaPool
from jina_asgi.serving.deployment import Yaml as _Yaml
from jina_asgi.serving.flow import Flow
from jina_asgi.settings import Limits
from jina_asgi.types import Context

_mend_doc_lists()
_ByItself.yaml = _Yaml()  # it knows what is above an Executor, and so cannot be imported by it

__all__ = [
    "BatchFailed",
    "Client",
    "Context",
    "DeadlineExceeded",
    "DefinitionError",
    "Deployment",
    "DynamicBatching",
    "Executor",
    "ExecutorError",
    "ExecutorHTTPError",
    "ExecutorInputError",
    "Flow",
    "GRPCSidecar",
    "InvalidDocs",
    "InvalidRequest",
    "JinaASGI",
    "JinaASGIError",
    "Limits",
    "NotReady",
    "Overloaded",
    "ReplicaDied",
    "ReplicaPool",
    "TooLarge",
    "Unauthenticated",
    "Unavailable",
    "UnknownEndpoint",
    "UnsupportedMedia",
    "UploadedPath",
    "dynamic_batching",
    "monitor",
    "mount",
    "requests",
]
