"""docarray's `DocList[...]` on Python 3.12 and newer.

docarray 0.41 gives a `types.GenericAlias` there, and `typing.get_type_hints`, which reads every annotation (pydantic's
reading of a class included), subscripts its origin once more: the list of `Text` is asked for a list of `Text` and
raises. Mended in docarray's own class as soon as it is imported, since documents are declared before anything of this
package sees them. This module imports no docarray.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from types import GenericAlias, ModuleType
from typing import Any

_MODULE = "docarray.array.doc_list.doc_list"


def mend_now_or_on_import() -> None:
    """Let a list of documents be subscripted with its own class again; before 3.12 nothing is amiss."""
    if sys.version_info < (3, 12):
        return
    if (module := sys.modules.get(_MODULE)) is not None:
        mend(module)
    elif not any(isinstance(finder, _DocListFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _DocListFinder())


def mend(module: ModuleType) -> None:
    """Mend the `DocList` of docarray's module, once."""
    lists: Any = module.DocList
    original = lists.__class_getitem__.__func__
    if getattr(original, "__module__", None) == __name__:
        return

    def class_getitem(cls: Any, item: Any) -> Any:
        if item in (cls.doc_type, (cls.doc_type,)) and cls is not lists:
            return GenericAlias(cls, cls.doc_type)
        return original(cls, item)

    lists.__class_getitem__ = classmethod(class_getitem)


class _DocListFinder(MetaPathFinder):
    """Waits for docarray's module, hands it to a loader that mends it, and leaves."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None, /
    ) -> ModuleSpec | None:
        if fullname != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _MendingLoader(spec.loader.name, spec.loader.path)
        return spec


class _MendingLoader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        mend(module)
