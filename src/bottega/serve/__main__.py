"""`python -m bottega.serve`: the server as the child of another program (the web app).

The settings come as one line of JSON on standard input, so that a key appears neither in the
process list nor in the environment. Standard input then stays open as a leash: when the
parent ends, however it ends, the pipe closes and the server stops. Standard output carries
one line, `{"port": N}`, once requests can be answered; all else goes to standard error.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time

from bottega.core.errors import BottegaError, UserError
from bottega.serve.config import Serve
from bottega.serve.listen import GRACE_SECONDS


def _end_with_parent(drain_seconds: float) -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(drain_seconds + GRACE_SECONDS + 2)
    os._exit(1)  # the orderly end did not come (a long computation holds it up)


def _read_config() -> Serve:
    if sys.stdin.isatty():
        raise UserError("settings are expected as JSON on standard input", hint="Use `bottega serve MODEL`.")
    try:
        values = json.loads(sys.stdin.buffer.readline())
    except ValueError:
        raise UserError("the first line of standard input is not JSON") from None
    return Serve.parse(values, where="standard input")


def main() -> int:
    """Serve until the leash is let go; the exit status."""
    announcements = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a stray print must not look like an announcement

    def announce(port: int) -> None:
        print(json.dumps({"port": port}), file=announcements, flush=True)

    try:
        config = _read_config()
        threading.Thread(target=_end_with_parent, args=(config.drain_seconds,), name="leash", daemon=True).start()
        from bottega.serve.command import serve

        serve(config, ready=announce)
    except BottegaError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
