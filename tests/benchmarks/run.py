"""All benchmarks, one after another, as one markdown report: about a quarter of an hour.

python tests/benchmarks/run.py --only echo,codecs --seconds 1 --rounds 1
"""

import argparse
import os
import platform
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
NAMES = (
    "codecs",
    "inprocess",
    "frames",
    "echo",
    "stream",
    "websocket",
    "vectors",
    "batching",
    "flow",
    "flow_http",
    "pool",
    "arrays",
)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", default=",".join(NAMES), help="names, with commas between (%(default)s)")
    chosen, rest = options.parse_known_args()
    print(f"# {platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} cores\n", flush=True)
    statuses = [
        subprocess.run([sys.executable, "-W", "ignore", HERE / f"bench_{name}.py", *rest], check=False).returncode
        for name in chosen.only.split(",")
    ]
    sys.exit(max(statuses))


if __name__ == "__main__":
    main()
