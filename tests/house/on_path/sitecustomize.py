"""Python imports this as it starts: it writes down each call of a function of the package, with the time of the call.

`HOUSE_CALLS` names the folder for the files, one a process; `HOUSE_PACKAGE` the package's folder. A process that lacks
them is not watched.
"""

import os
import sys
import threading
import time

INLINED = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")  # functions to some versions of Python only


def watch(folder: str, package: str) -> None:
    """Watch all threads of this process, and of those that are forked from it."""
    files: dict[int, int] = {}

    def note(frame, event, argument):  # type: ignore[no-untyped-def]  # as sys.setprofile wants it
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(package) or code.co_name in INLINED:
            return
        process = os.getpid()
        if process not in files:
            files[process] = os.open(os.path.join(folder, str(process)), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        path = code.co_filename[len(package) :]
        os.write(files[process], f"{time.monotonic_ns()} {path} {code.co_qualname}:{code.co_firstlineno}\n".encode())

    threading.setprofile(note)
    sys.setprofile(note)


if "HOUSE_CALLS" in os.environ:
    watch(os.environ["HOUSE_CALLS"], os.path.join(os.environ["HOUSE_PACKAGE"], ""))
