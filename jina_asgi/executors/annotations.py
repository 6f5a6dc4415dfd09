"""Resolves the annotations of a method, also of names that are imported for type checkers only."""

from __future__ import annotations

import ast
import inspect
import logging
import sys
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from jina_asgi.errors import DefinitionError

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
