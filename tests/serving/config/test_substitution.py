"""Substitution in plain data: names are looked up once, and never evaluated."""

from __future__ import annotations

from typing import Any

import pytest

from jina_asgi.serving.config._substitution import substituted

ENVIRONMENT = {"HOME": "/home/me", "N": "2", "NESTED": "${{ ENV.HOME }} $HOME", "true": "x"}
CONTEXT = {"name": "lm", "options": {"a": 1}, "n": 3}


def of(data: Any) -> tuple[Any, list[tuple[Any, str]]]:
    complaints: list[tuple[Any, str]] = []
    found = substituted(
        data, environment=ENVIRONMENT, context=CONTEXT, complain=lambda *complaint: complaints.append(complaint)
    )
    return found, complaints


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${{ ENV.HOME }}", "/home/me"),
        ("${{ env.N }}", "2"),
        ("${{ENV.HOME}}/x", "/home/me/x"),
        ("$HOME/x ${N}", "/home/me/x 2"),
        ("$NOBODY costs $5", "$NOBODY costs $5"),
        ("${{ CONTEXT.name }}", "lm"),
        ("${{ name }}", "lm"),
        ("${{ n }}", 3),
        ("${{ CONTEXT.options }}", {"a": 1}),
        ("a ${{ n }} b ${{ name }}", "a 3 b lm"),
        ("${{ ENV.NESTED }}", "${{ ENV.HOME }} $HOME"),
        ("x${{ ENV.NESTED }}x", "x${{ ENV.HOME }} $HOMEx"),
        ("${{root.list[1]}}", "second"),
        ("${{root.list[1]}}!", "second!"),
        ("${{this.number}}", 7),
        ("no dollar", "no dollar"),
    ],
)
def test_a_name_stands_for_what_is_found(text: str, expected: Any) -> None:
    data = {"text": text, "number": 7, "list": ["first", "second"]}
    found, complaints = of(data)
    assert expected == found["text"]
    assert [] == complaints


@pytest.mark.parametrize(
    "text",
    [
        "${{ ENV.NOBODY }}",
        "${{ CONTEXT.nobody }}",
        "${{ nobody }}",
        "${{root.__class__}}",
        "${{root.__class__.__init__.__globals__}}",
        "${{this.list.append}}",
        "${{root.list[9]}}",
        "${{root}}",
        "${{ 1 + 1 }}",
        "${{ name.upper() }}",
        "${{ ${{ name }} }}",
        "a ${{ CONTEXT.options }}",
        "${{ name ",
        "${{root.list[1]x}}",
    ],
)
def test_what_names_nothing_is_complained_of_and_stays(text: str) -> None:
    found, complaints = of({"in": [text], "list": ["first"]})
    assert [(("in", 0))] == [path for path, _ in complaints]
    assert "${{" in found["in"][0] or text == "${{ ${{ name }} }}"


def test_other_values_stay_as_they_are() -> None:
    data = {"a": 1, "b": None, "c": [True, 1.5, {"d": "x"}]}
    assert (data, []) == of(data)
