"""Substitutes the expressions of a YAML file: `${{ ENV.X }}`, `${{ CONTEXT.x }}`, `${{root.a.b[0]}}`, `$X`.

One pass over plain data. Names are looked up and never evaluated, and substituted values are not searched again. Values
of the environment stay strings, which an option's own type may convert; in a program written for Jina they are
converted as in Jina (`as_argument`). Pure: no os.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

_EXPRESSION = re.compile(r"\$\{\{\s*([^{}]*?)\s*\}\}")
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))")
_STEP = re.compile(r"\.?([A-Za-z_][\w-]*)|\[(\d+)\]")
_MISSING = object()

Path = tuple[str | int, ...]
#: Called with a mistake and its position.
Complain = Callable[[Path, str], None]


def substituted(
    data: Any,
    *,
    environment: Mapping[str, str],
    context: Mapping[str, Any] | None = None,
    complain: Complain,
    read: Callable[[str], Any] = str,
) -> Any:
    """Replaces every expression in `data`; an unknown one stays, and is reported to `complain`.

    Text in which something was replaced is converted by `read`.
    """
    return _Substitution(data, environment, context or {}, complain, read).of(data, (), None)


def as_argument(text: str) -> Any:
    """Converts substituted text as Jina does: to a number, true, false, a list, or None if it is empty."""
    lowered = text.lower()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    if text.startswith("[") and text.endswith("]"):
        inner = text.replace("[", "").replace("]", "").strip()
        return [as_argument(item.strip()) for item in inner.split(",")] if inner else []
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        return number if math.isfinite(number) else text
    return {"": None, "true": True, "false": False}.get(lowered, text)


class _Substitution:
    def __init__(
        self,
        root: Any,
        environment: Mapping[str, str],
        context: Mapping[str, Any],
        complain: Complain,
        read: Callable[[str], Any],
    ) -> None:
        self._root, self._environment, self._context, self._complain = root, environment, context, complain
        self._read = read

    def of(self, value: Any, path: Path, around: Any) -> Any:
        if isinstance(value, dict):
            return {key: self.of(item, (*path, key), value) for key, item in value.items()}
        if isinstance(value, list):
            return [self.of(item, (*path, index), around) for index, item in enumerate(value)]
        return self._text(value, path, around) if isinstance(value, str) and "$" in value else value

    def _text(self, text: str, path: Path, around: Any) -> Any:
        whole = _EXPRESSION.fullmatch(text)
        if whole is not None:
            found = self._found(whole[1], around)
            if found is _MISSING:
                self._complain(path, f"{text!r} names nothing; {self._known(whole[1])}")
                return text
            return self._read(found) if isinstance(found, str) else found

        def expression(match: re.Match[str]) -> str:
            found = self._found(match[1], around)
            if found is _MISSING or isinstance(found, dict | list):
                self._complain(path, f"{match[0]!r} names no text; {self._known(match[1])}")
                return match[0]
            return str(found)

        def variable(match: re.Match[str]) -> str:
            return self._environment.get(match[1] or match[2], match[0])

        # Variables are looked up between expressions only: substituted values are not searched again.
        literal, end = list[str](), 0
        pieces = list[str]()
        for match in _EXPRESSION.finditer(text):
            literal.append(text[end : match.start()])
            pieces += [_VARIABLE.sub(variable, literal[-1]), expression(match)]
            end = match.end()
        literal.append(text[end:])
        if any("${{" in between for between in literal):
            hint = "expected ${{ ENV.NAME }}, ${{ CONTEXT.name }} or a path from root or this"
            self._complain(path, f"{text!r}: {hint}")
            return text
        made = "".join([*pieces, _VARIABLE.sub(variable, literal[-1])])
        return self._read(made) if made != text else text

    def _found(self, name: str, around: Any) -> Any:
        head, _, rest = name.partition(".")
        if head in ("ENV", "env"):
            return self._environment.get(rest, _MISSING)
        if head == "CONTEXT":
            return self._context.get(rest, _MISSING)
        if head in ("root", "this"):
            return _at(self._root if head == "root" else around, name[len(head) :])
        return self._context.get(name, _MISSING)

    def _known(self, name: str) -> str:
        head = name.partition(".")[0]
        if head in ("ENV", "env"):
            return "the environment has no such variable"
        if head in ("root", "this"):
            return "there is no such key"
        return f"known of the context: {', '.join(map(str, self._context)) or 'nothing, as none was given'}"


def _at(data: Any, path: str) -> Any:
    """Looks up `.a.b[0]` in plain data: mapping keys and list indices only."""
    end = 0
    for step in _STEP.finditer(path):
        if step.start() != end:
            return _MISSING
        end = step.end()
        if step[1] is not None and isinstance(data, dict) and step[1] in data:
            data = data[step[1]]
        elif step[2] is not None and isinstance(data, list) and int(step[2]) < len(data):
            data = data[int(step[2])]
        else:
            return _MISSING
    return data if end == len(path) and end else _MISSING
