"""`pooled` in a worker that takes longer to start than a host stays without workers where none can come."""

from __future__ import annotations

import time

from tests.doubles.pooled import app

__all__ = ["app"]

time.sleep(6.0)  # a slow import
