"""Reads the signature of an Executor's method, reports its mistakes, and makes its Endpoint."""

from __future__ import annotations

import ast
import inspect
import logging
import sys
import typing
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic.errors import PydanticUserError

from jina_asgi.errors import DefinitionError
from jina_asgi.settings.jina_options import as_jina
from jina_asgi.types import Endpoint, EndpointKind, ParametersSchema

logger = logging.getLogger("jina_asgi")


def annotations_of(function: Any, where: str, local_names: Mapping[str, Any], *, unknown: Any) -> dict[str, Any]:
    """Resolves a function's annotations.

    A name that its module imports below `if TYPE_CHECKING:` is imported now; if that fails, `unknown` is used instead,
    and a warning is logged.

    Raises:
        DefinitionError: an annotation cannot be resolved.
    """
    names = dict(local_names)
    while True:
        try:
            return typing.get_type_hints(function, localns=names, include_extras=True)
        except (NameError, TypeError, AttributeError) as error:
            name = error.name if isinstance(error, NameError) else None
            bound = None if name is None or name in names else _bound_for_checkers(function.__module__, name)
            if name is None or bound is None:
                raise DefinitionError(f"{where} has an annotation that cannot be resolved: {error}") from error
        try:
            names[name] = _imported(bound, name, vars(sys.modules[function.__module__]))
        except Exception as error:  # noqa: BLE001  # importing a module may raise anything
            logger.warning(
                "%s: %s is imported for type checkers only (%s: %s), so documents with Jina's own fields are used",
                where,
                name,
                type(error).__name__,
                error,
            )
            names[name] = unknown


def _bound_for_checkers(module: str, name: str) -> ast.stmt | None:
    """Finds the statement below `if TYPE_CHECKING:` that defines a name in a module; None if there is none."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (OSError, TypeError, KeyError, SyntaxError):  # it has no source file
        return None
    found = (one for one in _below_type_checking(tree) if name in _names_of(one))
    return next(found, None)


def _below_type_checking(tree: ast.Module) -> Iterator[ast.stmt]:
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).rpartition(".")[2] == "TYPE_CHECKING":
            yield from (below for one in node.body for below in ast.walk(one) if isinstance(below, ast.stmt))


def _names_of(statement: ast.stmt) -> set[str]:
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name.partition(".")[0] for alias in statement.names}
    if isinstance(statement, ast.ClassDef):
        return {statement.name}
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _imported(statement: ast.stmt, name: str, around: Mapping[str, Any]) -> Any:
    """Runs an import statement as its module would, and returns the value of a name.

    Raises:
        ImportError: it is another kind of statement. Any exception of the import.
    """
    if not isinstance(statement, ast.Import | ast.ImportFrom):
        raise ImportError("it is made there")  # noqa: TRY004  # what cannot be done is an import
    found: dict[str, Any] = {key: around.get(key) for key in ("__name__", "__package__", "__spec__", "__builtins__")}
    code = compile(ast.Module([statement], []), "<import for type checkers>", "exec")
    exec(code, found)  # noqa: S102  # a statement of the user's own module
    return found[name]


RESERVED = frozenset({"/status", "/docs", "/openapi.json", "/dry_run", "/post"})
#: The arguments that are passed; a method names those it needs, or takes them all in **kwargs.
ARGUMENTS = ("docs", "doc", "parameters", "docs_matrix", "docs_map", "tracing_context", "context")
_STREAMS = (Generator, AsyncGenerator, Iterator, AsyncIterator, Iterable, AsyncIterable)


@dataclass(frozen=True, slots=True)
class Method:
    """A method bound to an endpoint: its call convention, its inputs and outputs."""

    attribute: str
    endpoint: Endpoint
    is_async: bool
    arguments: frozenset[str]

    def on(self, name: str) -> Method:
        """The same method for another endpoint."""
        return replace(self, endpoint=replace(self.endpoint, name=name))


def normalised(name: str) -> str | None:
    """Adds the leading slash to an endpoint's name; '/' becomes '/default'. None for names that cannot be a path."""
    if not isinstance(name, str) or not name.isprintable() or not name.isascii():
        return None
    if set(name) & set(' ?#%{}\\"<>') or "//" in name or len(name) > 256:
        return None
    stripped = name.strip("/")
    if any(part in (".", "..") for part in stripped.split("/")):
        return None
    return f"/{stripped}" if stripped else "/default"


def checked_name(name: str, where: str) -> str:
    """Checks the name of an endpoint of an Executor.

    Raises:
        DefinitionError: it is not a path, or is one of the server's own.
    """
    endpoint = normalised(name)
    if endpoint is None:
        raise DefinitionError(f"{where} answers {name!r}: expected a path such as '/encode' of printable characters")
    if endpoint.startswith("/-/") or (endpoint in RESERVED and not as_jina()):  # gRPC serves them, and HTTP warns
        raise DefinitionError(f"{where} answers {endpoint}, which is reserved; choose another path")
    return endpoint


def method_of(
    cls: type,
    attribute: str,
    name: str,
    *,
    local_names: Mapping[str, Any],
    idempotent: bool = False,
    request_schema: Any = None,
    response_schema: Any = None,
) -> Method:
    """Reads one method's signature.

    Raises:
        DefinitionError: it names the method, what was found and what is expected.
    """
    from jina_asgi.documents import document_types, schemas  # docarray is imported with the first Executor class

    where = f"{cls.__name__}.{attribute}"
    function = getattr(cls, attribute)
    if isinstance(inspect.getattr_static(cls, attribute), staticmethod | classmethod) or not callable(function):
        raise DefinitionError(f"{where} is not an ordinary method; expected `def {attribute}(self, docs, ...)`")
    names = {**local_names, cls.__name__: cls}
    hints = annotations_of(function, where, names, unknown=document_types.LegacyDocument)
    arguments = _arguments(function, where)
    kind = _kind(function, hints, arguments, where)
    argument = "doc" if kind != "batch" else "docs"
    taken, given = (hints.get(argument), argument) if request_schema is None else (request_schema, "request_schema")
    taken = _without(taken, type(None))
    returned, answer = (hints.get("return"), "the return type")
    if response_schema is not None:
        returned, answer = response_schema, "response_schema"
    # None: changed in place; a dict: `__results__`
    returned = _without(returned, type(None), dict) if kind == "batch" else _without(returned, type(None))
    if kind == "batch":
        takes = _batch(taken, f"{where}: {given}")
        gives = takes if returned is None else _batch(returned, f"{where}: {answer}")
    else:
        takes = _single(taken, f"{where}: {given}")
        if kind == "stream" and (returned in _STREAMS or get_origin(returned) in _STREAMS):
            returned = next(iter(get_args(returned)), None)
        gives = takes if returned is None else _single(returned, f"{where}: {answer}")
    is_async = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
    endpoint = Endpoint(
        name=name,
        kind=kind,
        input=schemas.schema_of(takes),
        output=schemas.schema_of(gives),
        parameters=_parameters(hints.get("parameters"), where),
        idempotent=idempotent,
        concurrent=is_async,
        description=inspect.getdoc(function) or "",
    )
    return Method(attribute, endpoint, is_async, arguments)


def _arguments(function: Any, where: str) -> frozenset[str]:
    parameters = list(inspect.signature(function).parameters.values())[1:]
    if not parameters and not inspect.signature(function).parameters:
        raise DefinitionError(f"{where} takes no `self`; an endpoint is an ordinary method")
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return frozenset(ARGUMENTS)
    for p in parameters:
        if p.kind is p.POSITIONAL_ONLY:
            raise DefinitionError(f"{where} takes {p.name!r} by position only; endpoints are called by keyword")
        if p.name not in ARGUMENTS and p.default is p.empty and p.kind is not p.VAR_POSITIONAL:
            raise DefinitionError(
                f"{where} takes {p.name!r}, which is never passed; expected among {', '.join(ARGUMENTS)}, or **kwargs"
            )
    return frozenset(p.name for p in parameters if p.name in ARGUMENTS)


def _kind(function: Any, hints: Mapping[str, Any], arguments: frozenset[str], where: str) -> EndpointKind:
    names = set(inspect.signature(function).parameters)
    if "doc" in names and "docs" in names:
        raise DefinitionError(f"{where} takes both `doc` and `docs`; expected one: `doc` for one document at a time")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        if "docs" in names or "doc" not in names:
            raise DefinitionError(f"{where} yields, so it streams the answer to one document; expected `doc: SomeDoc`")
        return "stream"
    if "doc" in names:
        return "single"
    if not arguments & {"docs", "docs_matrix", "docs_map"}:
        raise DefinitionError(f"{where} takes no documents; expected `docs: DocList[SomeDoc]` or `doc: SomeDoc`")
    return "batch"


def _batch(annotation: Any, where: str) -> Any:
    from jina_asgi.documents import document_types  # docarray is imported with the first Executor class

    if annotation in (None, dict, typing.Any, document_types.LegacyDocument) or get_origin(annotation) is dict:
        return document_types.LegacyDocument
    container = document_types.Container.of(annotation)
    if container is None:
        return _generic(
            f"{where} is annotated as {_name(annotation)}; expected DocList[SomeDoc] or list[SomeModel]"
            " (for one document at a time, take `doc: SomeDoc`)"
        )
    return container.model


def _single(annotation: Any, where: str) -> Any:
    from jina_asgi.documents import document_types  # docarray is imported with the first Executor class

    if annotation is None:
        return document_types.LegacyDocument
    if not document_types.is_document(annotation):
        return _generic(f"{where} is annotated as {_name(annotation)}; expected a BaseDoc or a pydantic model")
    return annotation


def _generic(mistake: str) -> Any:
    """Jina's legacy document, in place of an invalid annotation in a program written for Jina.

    Raises:
        DefinitionError: the mistake, in any other program.
    """
    from jina_asgi.documents import document_types  # docarray is imported with the first Executor class

    if not as_jina():
        raise DefinitionError(mistake)
    logger.warning("%s; as in Jina, documents with its own fields are taken instead", mistake)
    return document_types.LegacyDocument


def _parameters(annotation: Any, where: str) -> ParametersSchema | None:
    from jina_asgi.documents import document_types, schemas  # docarray is imported with the first Executor class

    if get_origin(annotation) is Annotated:
        return _parameters(get_args(annotation)[0], where)
    plain = (None, dict, Mapping, typing.Any, document_types.LegacyDocument)  # the last one stands for unresolved names
    if annotation in plain or get_origin(annotation) in (dict, Mapping):
        return None
    try:
        schema = schemas.parameters_schema(annotation)
    except PydanticUserError as error:
        raise DefinitionError(f"{where}: the parameters' model {_name(annotation)} has no schema: {error}") from error
    if schema is not None:
        return schema
    members = [m for m in get_args(annotation) if m is not type(None)]
    if members and all(m in plain or get_origin(m) in (dict, Mapping) for m in members):
        return None
    raise DefinitionError(
        f"{where}: parameters are annotated as {_name(annotation)}; expected a dict or a pydantic model"
    )


def _without(annotation: Any, *dropped: Any) -> Any:
    """An annotation without some members of its union; None if nothing is left."""
    is_union = get_origin(annotation) in (Union, UnionType)
    members = get_args(annotation) if is_union else (annotation,)
    left = tuple(m for m in members if m is not None and m not in dropped and get_origin(m) not in dropped)
    return Union[left] if left else None  # noqa: UP007  # built from a tuple


def _name(annotation: Any) -> str:
    """An annotation as source text, without module names."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(origin, type) and arguments:
        return f"{origin.__name__.partition('[')[0]}[{', '.join(map(_name, arguments))}]"
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
