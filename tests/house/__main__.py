"""Measures the house: `python -m tests.house [TREE] [--before TREE] [--list]`.

Sizes, shape, names, words and duplicates of a checkout's package, and how many of its files and functions run for one
call; `--before` measures another checkout too, `--list` says which files and names they are.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from tests.house.calls import WALKS, functions_of
from tests.house.source import House, duplicates

ROOT = Path(__file__).parent.parent.parent
#: What each may be at most, where a goal is set.
GOALS = {
    "entries at the top": "21",
    "modules": "190",
    "typing Protocols": "12",
    "names of several classes": "0",
    "files over 350 lines": "0",
    "dialect in names": "0",
    "dialect in variables": "0",
    "dialect in docstrings": "30",
    "duplicates of 6 lines and more": "0",
    "reading path: files": "12",
    "reading path: lines": "3500",
    "http: files": "13",
    "http: functions": "40",
    "batching: files": "24",
    "pool: files": "34",
    "grpc: files": "20",
    "flow: files": "20",
}


def measured(tree: Path, walks: Iterable[str]) -> dict[str, tuple[int | None, list[str]]]:
    """By the name of each measure: the number, and what it counts."""
    house = House(tree)
    shared, same, path = house.shared_names, duplicates(house.modules), house.reading_path
    found: dict[str, tuple[int | None, list[str]]] = {
        "entries at the top": (len(house.top), house.top),
        "modules": (len(house.modules), []),
        "package lines": (sum(len(module.lines) for module in house.modules), []),
        "classes": (sum(len(module.classes) for module in house.modules), []),
        "typing Protocols": (len(house.protocols), house.protocols),
        "names of several classes": (len(shared), [f"{name}: {', '.join(where)}" for name, where in shared.items()]),
        "files over 350 lines": (len(house.long), [f"{name} {lines}" for name, lines in house.long.items()]),
        "dialect in names": (len(house.dialect_definitions), house.dialect_definitions),
        "dialect in variables": (len(house.dialect_variables), house.dialect_variables),
    }
    for part in ("docstrings", "comments", "messages"):
        counts = house.dialect_in(part)
        found[f"dialect in {part}"] = sum(counts.values()), [f"{name} {count}" for name, count in counts.items()]
    counts = house.dialect_in_pages
    found["dialect in pages"] = sum(counts.values()), [f"{name} {count}" for name, count in counts.items()]
    found["duplicates of 6 lines and more"] = len(same), [str(one) for one in same]
    found["reading path: files"] = None if path is None else len(path), path or []
    found["reading path: lines"] = None if path is None else house.lines_of(path), []
    for walk in walks:
        functions = functions_of(tree, walk)
        files = sorted({file for file, _ in functions})
        found[f"{walk}: files"] = len(files), files
        found[f"{walk}: functions"] = len(functions), [f"{file} {function}" for file, function in sorted(functions)]
    return found


def table(now: dict[str, tuple[int | None, list[str]]], before: dict[str, tuple[int | None, list[str]]] | None) -> str:
    """A line a measure: its name, the number before and now, and the goal."""
    rows = [["", *(["before"] if before else []), "now", "goal (at most)"]]
    for name, (number, _) in now.items():
        earlier = [before[name][0]] if before else []
        numbers = ["-" if one is None else str(one) for one in (*earlier, number)]
        rows.append([name, *numbers, GOALS.get(name, "")])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.house", description=__doc__)
    parser.add_argument("tree", nargs="?", type=Path, default=ROOT, help="a checkout (default: this one)")
    parser.add_argument("--before", type=Path, metavar="TREE", help="another checkout, for a column beside it")
    parser.add_argument("--list", action="store_true", help="list the files and names that are counted")
    parser.add_argument("--no-calls", action="store_true", help="read the source only, and make no call")
    options = parser.parse_args()
    walks = [] if options.no_calls else [*WALKS]
    now = measured(options.tree, walks)
    print(table(now, measured(options.before, walks) if options.before else None))
    if options.list:
        for name, (_, counted) in now.items():
            print(f"\n{name}\n" + "".join(f"  {one}\n" for one in counted), end="")
    elif walks:
        print("\n" + "\n".join(f"{walk}: {meaning}" for walk, meaning in WALKS.items()))


if __name__ == "__main__":
    main()
