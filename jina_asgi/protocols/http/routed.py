"""HTTP requests whose endpoint is found late: named by the body of `POST /post`, or known once the Runner has loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from starlette.types import Scope

from jina_asgi.concurrency.offload import LARGE, beside
from jina_asgi.errors import UnknownEndpoint
from jina_asgi.executors.endpoints import normalised
from jina_asgi.protocols.http.app import Body, CallApp, EndpointApp, HttpOptions, Live, authenticate
from jina_asgi.protocols.http.disconnects import DisconnectWatch
from jina_asgi.protocols.http.exchange import Sent
from jina_asgi.protocols.http.exec_endpoint import exec_endpoint
from jina_asgi.protocols.http.headers import RawHeaders, media_type
from jina_asgi.protocols.http.upload import Upload
from jina_asgi.protocols.http.uploads import FORM, form
from jina_asgi.protocols.problems import MethodNotAllowed
from jina_asgi.protocols.size_guard import is_heavy
from jina_asgi.types import Context, Runner


class PostApp(CallApp):
    """`POST /post`, whose body names its endpoint, as Jina's clients do.

    `auth` is asked twice: about "/post" before the body is read, then about the endpoint.
    """

    def __init__(
        self, endpoints: Mapping[str, EndpointApp], live: Live, options: HttpOptions, watch: DisconnectWatch
    ) -> None:
        super().__init__("/post", ("POST",), live, options, watch)
        self._endpoints = endpoints

    def upload(self, scope: Scope, headers: RawHeaders) -> Upload | None:
        declared = headers.get(b"content-type", b"")
        is_form = media_type(headers) == FORM
        return form(declared, self._limits) if is_form else None

    async def reply(
        self, runner: Runner, scope: Scope, headers: RawHeaders, raw: Body, context: Context, sent: Sent
    ) -> None:
        media = media_type(headers)
        if isinstance(raw, Upload):
            named = raw.take("exec_endpoint")
        elif is_heavy(media, raw, numbers=False):
            named = await beside(context.deadline, exec_endpoint, media, raw, heavy=len(raw) >= LARGE)
        else:
            named = exec_endpoint(media, raw)
        name = normalised(named) or "/default"
        endpoint = self._endpoints.get(name) or self._endpoints.get("/default")
        if endpoint is None:
            raise UnknownEndpoint(f"no endpoint {name!r} and no '/default'")
        if self._options.auth:
            context.identity = await authenticate(self._options.auth, endpoint.name, scope)
        await endpoint.reply(runner, scope, headers, raw, context, sent)


class LateApp(CallApp):
    """One request to a path that may be an endpoint's, of a Runner whose endpoints are known once it has loaded.

    `find` gives the application of a path then, or raises UnknownEndpoint or NotReady. `auth` is asked before, and
    once for both.
    """

    def __init__(
        self,
        path: str,
        method: str,
        find: Callable[[str], CallApp],
        live: Live,
        options: HttpOptions,
        watch: DisconnectWatch,
    ) -> None:
        super().__init__(path, (method,), self, options, watch)
        self._find, self._loading = find, live
        self._app: CallApp = self

    async def runner(self) -> Runner:
        """The Runner, once it has loaded, and is known to answer this path by this method.

        Raises:
            NotReady, UnknownEndpoint, MethodNotAllowed.
        """
        runner = await self._loading.runner()
        self._app = self._find(self.name)
        if self.methods[0] not in self._app.methods:
            raise MethodNotAllowed(self._app.methods)
        return runner

    def upload(self, scope: Scope, headers: RawHeaders) -> Upload | None:
        return self._app.upload(scope, headers)

    async def reply(
        self, runner: Runner, scope: Scope, headers: RawHeaders, raw: Body, context: Context, sent: Sent
    ) -> None:
        await self._app.reply(runner, scope, headers, raw, context, sent)
