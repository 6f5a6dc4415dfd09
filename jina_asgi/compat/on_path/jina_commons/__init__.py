"""The `jina_commons` that older Executors of Jina's hub import; its names are in `jina_asgi.compat.names`."""

import sys

from jina_asgi.compat.names import answer_for

answer_for(sys.modules[__name__])
