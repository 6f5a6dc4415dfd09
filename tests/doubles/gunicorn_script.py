"""gunicorn as its console script starts it: `python -m gunicorn` cannot start itself again for USR2.

(It would run `gunicorn/__main__.py`, beside which gunicorn's own `http` hides the standard library's.)
"""

from __future__ import annotations

import sys
from pathlib import Path

from gunicorn.app.wsgiapp import run

if __name__ == "__main__":
    sys.argv[0] = str(Path(sys.executable).with_name("gunicorn"))
    run()
