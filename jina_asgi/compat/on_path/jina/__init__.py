"""The `jina` that programs find where this folder is on the path; its names are in `jina_asgi.compat.names`."""

import sys

from jina_asgi.compat.names import answer_for

answer_for(sys.modules[__name__])
