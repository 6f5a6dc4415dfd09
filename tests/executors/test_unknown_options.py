"""A key of `uses_with` that an Executor's `**kwargs` swallow is named in the log, with the nearest parameter."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from jina_asgi import Deployment, Executor


class Base(Executor):
    def __init__(self, size: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)


class Parrot(Base):
    def __init__(self, mark: str = "!", **kwargs: Any) -> None:
        self.color = kwargs.get("color", "red")
        self.kwargs = kwargs
        super().__init__(**kwargs)

    def beak(self) -> str:
        return str(self.kwargs["beak"])


class Closed(Executor):
    """What it takes does not come to the base."""

    def __init__(self, mark: str = "!", **model_options: Any) -> None:
        super().__init__()


class Silent(Executor):
    def __init__(self, *, mark: str = "!", **_: Any) -> None: ...


class Plain(Executor):
    pass


@pytest.mark.parametrize(
    ("cls", "options", "warnings"),
    [
        (Parrot, {}, []),
        (Parrot, {"mark": "?", "size": 2, "color": "blue", "beak": "long"}, []),
        (
            Parrot,
            {"marc": "?"},
            ["Parrot.__init__ has no parameter 'marc', which **kwargs takes; did you mean 'mark'?"],
        ),
        (Parrot, {"sise": 2}, ["Parrot.__init__ has no parameter 'sise', which **kwargs takes; did you mean 'size'?"]),
        (Parrot, {"wings": 2}, ["Parrot.__init__ has no parameter 'wings', which **kwargs takes; it has mark, size"]),
        (
            Closed,
            {"marc": "?"},
            ["Closed.__init__ has no parameter 'marc', which **kwargs takes; did you mean 'mark'?"],
        ),
        (Closed, {"temperature": 0.5}, []),
        (
            Silent,
            {"marc": "?"},
            ["Silent.__init__ has no parameter 'marc', which **kwargs takes; did you mean 'mark'?"],
        ),
        (Plain, {"device": "cpu"}, ["Plain.__init__ has no parameter 'device', which **kwargs takes; it has none"]),
    ],
)
async def test_each_is_named_once(
    cls: type[Executor], options: dict[str, Any], warnings: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    again = type(cls.__name__, (cls,), {})  # a class is warned of once a process
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            async with Deployment(again, uses_with=options):
                pass
    assert warnings == caplog.messages


def test_an_executor_made_by_hand_is_looked_at_as_well(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        type("Parrot", (Parrot,), {})(marc="?")
    assert "did you mean 'mark'?" in caplog.text


async def test_jinas_own_names_are_none_of_them(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Plain(metas={"name": "a"}, requests={}, runtime_args={}, workspace=None, dynamic_batching={})
    assert [] == caplog.messages


def test_one_whose_init_takes_no_more_refuses_them_itself() -> None:
    class Strict(Executor):
        def __init__(self, mark: str = "!") -> None: ...

    with pytest.raises(TypeError, match="'marc'"):
        Strict.load_config({"jtype": "Strict", "with": {"marc": 1}})
