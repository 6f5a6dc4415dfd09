"""The work that every server does, and the answers that are right. Imported in every peer's environment: no dependencies."""

TOKENS = 200
DOCS, DIM = 64, 768


def token(i: int) -> str:
    return f"tok{i} "


#: Flows: the nodes, and what each needs.
SHAPES = {
    "one": {"a": ["gateway"]},
    "chain": {"a": ["gateway"], "b": ["a"]},
    "diamond": {"a": ["gateway"], "b": ["a"], "c": ["a"], "d": ["b", "c"]},
}
