"""Repairs docarray's `DocList[...]` on Python 3.12 and newer.

There docarray 0.41 returns a `types.GenericAlias`. `typing.get_type_hints`, which pydantic uses too, subscripts its
origin once more: the list class of `Text` is subscripted with `Text` again, and raises. The repair is made in docarray's
class as soon as docarray is imported, as documents are declared before this package sees them. This module does not
import docarray.
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
    """Repair docarray's class, now or when it is imported; nothing to do before Python 3.12."""
    if sys.version_info < (3, 12):
        return
    if (module := sys.modules.get(_MODULE)) is not None:
        mend(module)
    elif not any(isinstance(finder, _DocListFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _DocListFinder())


def mend(module: ModuleType) -> None:
    """Let a list class be subscripted with its own document class again."""
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
    """Waits for the import of docarray's module, gives it a loader that repairs it, and removes itself."""

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
