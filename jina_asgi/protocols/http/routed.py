"""Finds the application of an HTTP path, also if the endpoint is known late: from the body, or after loading."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from starlette.types import Scope

from jina_asgi.concurrency.offload import LARGE, parse_in_thread
from jina_asgi.documents.msgpack import unpack
from jina_asgi.errors import InvalidRequest, UnknownEndpoint
from jina_asgi.executors.endpoints import normalised
from jina_asgi.protocols.http.app import Body, CallApp, EndpointApp
from jina_asgi.protocols.http.bodies import loads_any, protobuf, unsupported
from jina_asgi.protocols.http.exchange import DisconnectMonitor, RawHeaders, ResponseWriter, media_type
from jina_asgi.protocols.http.upload import Upload
from jina_asgi.protocols.http.uploads import FORM, form
from jina_asgi.protocols.problems import MethodNotAllowed
from jina_asgi.protocols.service import OpenedCall, Service
from jina_asgi.protocols.size_guard import JSON, MSGPACK, PROTOBUF, is_heavy
from jina_asgi.types import Endpoint


class _WithEndpoint(msgspec.Struct):
    """A body of which only the endpoint is parsed; its other values become no objects."""

    exec_endpoint: msgspec.Raw = msgspec.Raw(b"null")


_named_in_json = msgspec.json.Decoder(_WithEndpoint).decode
_named_in_msgpack = msgspec.msgpack.Decoder(_WithEndpoint).decode


def exec_endpoint(media: str, raw: bytes, *, heavy: bool = False) -> str:
    """The endpoint in the body of `POST /post`; of a `heavy` body nothing else is parsed.

    Raises:
        InvalidRequest, UnsupportedMedia: as `Bodies.read`.
    """
    if media == PROTOBUF:
        requests = protobuf()
        found: str = requests.fields_of(requests.read(raw)).endpoint
        return found
    if media not in (JSON, MSGPACK):
        raise unsupported(media)
    if not heavy:
        body = loads_any(raw) if media == JSON else unpack(raw)
        given = body.get("exec_endpoint") if isinstance(body, dict) else None
        return given if isinstance(given, str) else "/default"
    try:
        if media == JSON:
            return msgspec.json.decode(_named_in_json(raw).exec_endpoint, type=str)
        return msgspec.msgpack.decode(_named_in_msgpack(raw).exec_endpoint, type=str)
    except msgspec.ValidationError:  # not an object, or without a name
        return "/default"
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the body is not {media}: {error}") from None


POST = "/post"


class HttpRoutes:
    """The application of each path of a service; rebuilt when its endpoints change."""

    def __init__(self, service: Service) -> None:
        self._service, self._monitor = service, DisconnectMonitor()
        self._endpoints: Mapping[str, Endpoint] | None = None
        self._apps: Mapping[str, EndpointApp] = {}
        self._calls: Mapping[str, CallApp] = {}

    @property
    def apps(self) -> Mapping[str, EndpointApp]:
        """The application of each endpoint.

        Raises:
            NotReady: the endpoints are not known yet.
        """
        self._follow(self._service.endpoints)
        return self._apps

    @property
    def calls(self) -> Mapping[str, CallApp]:
        """The application of each path: those of the endpoints, and `POST /post`.

        Raises:
            NotReady: the endpoints are not known yet.
        """
        self._follow(self._service.endpoints)
        return self._calls

    def current(self) -> Mapping[str, CallApp]:
        """As `calls`; empty while the endpoints are not known."""
        endpoints = self._service.current_endpoints()
        if endpoints is None:
            return {}
        if endpoints is not self._endpoints:
            self._follow(endpoints)
        return self._calls

    def late(self, path: str, method: str) -> LateApp:
        """The application of one request to a path, while the endpoints are not known."""
        return LateApp(path, method, self, self._service, self._monitor)

    def _follow(self, endpoints: Mapping[str, Endpoint]) -> None:
        if endpoints is not self._endpoints:
            service, monitor = self._service, self._monitor
            apps = {name: EndpointApp(endpoint, service, monitor) for name, endpoint in endpoints.items()}
            self._endpoints, self._apps = endpoints, apps
            self._calls = {**apps, POST: PostApp(apps, service, monitor)}


class PostApp(CallApp):
    """`POST /post`, whose body names its endpoint, as Jina's clients do.

    `auth` is called twice: with "/post" before the body is read, then with the endpoint.
    """

    def __init__(self, endpoints: Mapping[str, EndpointApp], service: Service, monitor: DisconnectMonitor) -> None:
        super().__init__(POST, ("POST",), service, monitor)
        self._endpoints = endpoints

    def upload(self, scope: Scope, headers: RawHeaders) -> Upload | None:
        declared = headers.get(b"content-type", b"")
        is_form = media_type(headers) == FORM
        return form(declared, self._limits) if is_form else None

    async def reply(
        self, opened: OpenedCall, scope: Scope, headers: RawHeaders, raw: Body, response: ResponseWriter
    ) -> None:
        media, context = media_type(headers), opened.context
        if isinstance(raw, Upload):
            named = raw.take("exec_endpoint")
        elif is_heavy(media, raw, numbers=False):
            named = await parse_in_thread(context.deadline, exec_endpoint, media, raw, heavy=len(raw) >= LARGE)
        else:
            named = exec_endpoint(media, raw)
        name = normalised(named) or "/default"
        endpoint = self._endpoints.get(name) or self._endpoints.get("/default")
        if endpoint is None:
            raise UnknownEndpoint(f"no endpoint {name!r} and no '/default'")
        opened.named(endpoint.name)
        if self._service.has_auth:
            context.identity = await self._service.authenticate(endpoint.name, context.headers)
        await endpoint.reply(opened, scope, headers, raw, response)


class LateApp(CallApp):
    """One request to a path that may be an endpoint, of a Runner that must load before its endpoints are known.

    `auth` is called before loading, and only once.
    """

    def __init__(
        self, path: str, method: str, routes: HttpRoutes, service: Service, monitor: DisconnectMonitor
    ) -> None:
        super().__init__(path, (method,), service, monitor)
        self._routes = routes

    def target(self, method: str) -> CallApp:
        """The application of this path.

        Raises:
            NotReady, UnknownEndpoint, MethodNotAllowed.
        """
        app = self._routes.calls.get(self.name)
        if app is None:
            raise UnknownEndpoint("Not Found")
        if method not in app.methods:
            raise MethodNotAllowed(app.methods)
        return app

    async def reply(
        self, opened: OpenedCall, scope: Scope, headers: RawHeaders, raw: Body, response: ResponseWriter
    ) -> None:
        await self.target(scope["method"]).reply(opened, scope, headers, raw, response)
