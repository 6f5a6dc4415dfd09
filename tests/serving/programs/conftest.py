"""What these tests share with those of `processes`: real servers, and their journal."""

from __future__ import annotations

from tests.processes.conftest import journal

__all__ = ["journal"]
