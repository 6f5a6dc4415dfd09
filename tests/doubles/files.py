"""Files that tests change while another process or thread reads them."""

from __future__ import annotations

from pathlib import Path


def replace_text(file: Path, text: str) -> None:
    """Give a file another text in one step: a reader gets the former text or this one, whole.

    `Path.write_text` empties the file first, which a reader can see.
    """
    written = file.with_name(f".{file.name}.written")
    written.write_text(text)
    written.replace(file)
