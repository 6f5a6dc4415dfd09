"""Measures the source of a checkout: its size, its shape, its names and its words."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

LONG = 350
#: The words of the dialect that the field has better ones for.
DIALECT = frozenset(
    "told tell tells teller tellers nobody nobodys somebody somebodys whoever everybody everybodys".split()
)
_WORDS = re.compile(rf"\b(?:{'|'.join(sorted(DIALECT))})(?:'s)?\b|\bwhat\s+answers\b", re.IGNORECASE)
_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_TRIVIAL = re.compile(r"[()\[\]{},:.\s]*|pass")
DUPLICATED = 6


def dialect_in(text: str) -> int:
    """How many words of the dialect a text has."""
    return len(_WORDS.findall(text))


def is_dialect(name: str) -> bool:
    """Whether a name has a word of the dialect as one of its parts."""
    parts = [part.lower() for part in _PARTS.findall(name)]
    return not DIALECT.isdisjoint(parts) or "what_answers" in name.lower()


@dataclass(frozen=True)
class Module:
    """One file of Python, parsed."""

    path: Path
    name: str  # relative to the package, as "runners/wrappers.py"
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @cached_property
    def classes(self) -> list[ast.ClassDef]:
        return [node for node in ast.walk(self.tree) if isinstance(node, ast.ClassDef)]

    @cached_property
    def docstring_nodes(self) -> list[ast.Constant]:
        return [
            node.body[0].value
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and ast.get_docstring(node) is not None
            and isinstance(node.body[0], ast.Expr)
            and isinstance(node.body[0].value, ast.Constant)
        ]

    @property
    def definitions(self) -> Iterator[str]:
        """The names of the module, its classes and its functions."""
        yield Path(self.name).stem
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield node.name

    @property
    def variables(self) -> Iterator[str]:
        """The names of arguments, variables and attributes, once for each place that sets one."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.arg):
                yield node.arg
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                yield node.attr

    @property
    def comments(self) -> Iterator[str]:
        for token in tokenize.generate_tokens(io.StringIO(self.text).readline):
            if token.type == tokenize.COMMENT:
                yield token.string

    @property
    def messages(self) -> Iterator[str]:
        """The strings that are no docstrings."""
        docstrings = set(map(id, self.docstring_nodes))
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                yield node.value

    @property
    def logic(self) -> list[tuple[int, str]]:
        """The numbered lines, stripped, without imports, docstrings, comments, signatures, and brackets alone."""
        nodes = list(ast.walk(self.tree))
        left_out = [*self.docstring_nodes, *(node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom))]
        skipped = {number for node in left_out for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)}
        for node in nodes:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                skipped.update(range(first, node.body[0].lineno))
        stripped = ((number, line.strip()) for number, line in enumerate(self.lines, 1) if number not in skipped)
        return [(n, line) for n, line in stripped if not line.startswith("#") and not _TRIVIAL.fullmatch(line)]


@dataclass(frozen=True)
class Duplicate:
    """Lines that two files have in common."""

    first: str
    second: str
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.first} = {self.second}: {len(self.lines)} lines, from {self.lines[0]!r}"


def duplicates(modules: list[Module]) -> list[Duplicate]:
    """The runs of six and more lines of logic that are the same in two files."""
    logic = {module.name: module.logic for module in modules}
    windows: dict[tuple[str, ...], list[tuple[str, int]]] = defaultdict(list)
    for name, lines in logic.items():
        for start in range(len(lines) - DUPLICATED + 1):
            windows[tuple(line for _, line in lines[start : start + DUPLICATED])].append((name, start))
    pairs = {
        (one, other)
        for places in windows.values()
        for number, one in enumerate(places)
        for other in places[number + 1 :]
        if one[0] != other[0]
    }
    found = []
    for (first, start), (second, other) in sorted(pairs):
        if ((first, start - 1), (second, other - 1)) in pairs:
            continue  # within the run that began above
        length = DUPLICATED
        while ((first, start + length - DUPLICATED + 1), (second, other + length - DUPLICATED + 1)) in pairs:
            length += 1
        places = f"{first}:{logic[first][start][0]}", f"{second}:{logic[second][other][0]}"
        found.append(Duplicate(*places, tuple(line for _, line in logic[first][start : start + length])))
    return found


def is_protocol(cls: ast.ClassDef) -> bool:
    """Whether a class is a typing.Protocol by its bases."""
    bases = (base.value if isinstance(base, ast.Subscript) else base for base in cls.bases)
    return any(ast.unparse(base) in ("Protocol", "typing.Protocol") for base in bases)


class House:
    """A checkout: its package without contrib, and its pages."""

    def __init__(self, tree: Path) -> None:
        self.tree, self.package = tree, tree / "jina_asgi"
        paths = sorted(path for path in self.package.rglob("*.py") if self._is_ours(path))
        self.modules = [
            Module(path, path.relative_to(self.package).as_posix(), path.read_text(encoding="utf-8")) for path in paths
        ]

    def _is_ours(self, path: Path) -> bool:
        return "contrib" not in path.relative_to(self.package).parts

    @property
    def top(self) -> list[str]:
        """The files and folders at the top of the package, but for `py.typed` and the link to contrib."""
        entries = (path.name for path in self.package.iterdir())
        return sorted(name for name in entries if name not in ("py.typed", "contrib", "__pycache__"))

    @property
    def long(self) -> dict[str, int]:
        return {module.name: len(module.lines) for module in self.modules if len(module.lines) > LONG}

    @property
    def protocols(self) -> list[str]:
        return [f"{one.name}:{cls.name}" for one in self.modules for cls in one.classes if is_protocol(cls)]

    @property
    def shared_names(self) -> dict[str, list[str]]:
        """The names that classes of several modules have, and those modules."""
        places: dict[str, list[str]] = defaultdict(list)
        for module in self.modules:
            for name in sorted({cls.name for cls in module.classes}):
                places[name].append(module.name)
        return {name: modules for name, modules in sorted(places.items()) if len(modules) > 1}

    @property
    def dialect_definitions(self) -> list[str]:
        return [f"{one.name}:{name}" for one in self.modules for name in one.definitions if is_dialect(name)]

    @property
    def dialect_variables(self) -> list[str]:
        return [f"{one.name}:{name}" for one in self.modules for name in one.variables if is_dialect(name)]

    def dialect_in(self, part: str) -> dict[str, int]:
        """How many words of the dialect each module has in its docstrings, comments or messages."""
        texts = {
            "docstrings": lambda module: [node.value for node in module.docstring_nodes],
            "comments": lambda module: module.comments,
            "messages": lambda module: module.messages,
        }[part]
        counts = {module.name: sum(map(dialect_in, texts(module))) for module in self.modules}
        return {name: count for name, count in counts.items() if count}

    @property
    def dialect_in_pages(self) -> dict[str, int]:
        pages = [*sorted((self.tree / "docs").glob("*.md")), self.tree / "README.md", self.tree / "CONTRIBUTING.md"]
        counts = {page.name: dialect_in(page.read_text(encoding="utf-8")) for page in pages}
        return {name: count for name, count in counts.items() if count}

    @property
    def reading_path(self) -> list[str] | None:
        """The files, relative to the package, that docs/architecture.md has a newcomer read; None without that page."""
        page = self.tree / "docs" / "architecture.md"
        if not page.exists():
            return None
        _, found, rest = page.read_text(encoding="utf-8").partition("\n## Reading path\n")
        assert found, f"{page} has no section `Reading path`"
        return re.findall(r"^\d+\. `([^`]+)`", rest.split("\n## ")[0], re.MULTILINE)

    def lines_of(self, names: list[str]) -> int:
        return sum(len((self.package / name).read_text(encoding="utf-8").splitlines()) for name in names)
