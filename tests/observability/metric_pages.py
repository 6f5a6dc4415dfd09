"""The table of metrics in docs/observability.md, made from the code: `python -m tests.observability.metric_pages` writes it."""

from __future__ import annotations

from pathlib import Path

from jina_asgi.observability.metrics import METRICS, OF_JINA, Metric

FILE = Path(__file__).parents[2] / "docs" / "observability.md"
BEGIN, END = "<!-- metrics -->\n", "<!-- /metrics -->\n"


def table() -> str:
    """The table of all metrics."""
    rows = [row(metric) for metric in (*METRICS, *OF_JINA)]
    rows.append("| `jina_<name>` | histogram | `runtime_name` | What `@monitor` and `self.monitor` time. |")
    return "\n".join(["| metric | kind | labels | what it is |", "|---|---|---|---|", *rows, ""])


def row(metric: Metric) -> str:
    name = f"{metric.name}_total" if metric.kind == "counter" else metric.name
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{name}` | {metric.kind} | {labels} | {metric.help} |"


def written() -> str:
    """The whole page, with the table as it should be."""
    before, _, rest = FILE.read_text(encoding="utf-8").partition(BEGIN)
    return f"{before}{BEGIN}{table()}{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    FILE.write_text(written(), encoding="utf-8")
