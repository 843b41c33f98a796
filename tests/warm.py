"""Commands that start warm: a process that has imported the command line forks itself for each of them.

Starting Python and importing takes three quarters of a short command's time. What runs is a process of its own, with
its own files, folder, environment and exit code, as if it had been started cold. Only commands that are run to their
end come from here; those that are killed, interrupted or timed are started as people start them.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from signal import SIGKILL
from tempfile import TemporaryFile

REQUEST_BYTES_MAX = 128 * 1024


def run(
    arguments: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    *,
    stdin: bytes = b"",
    timeout: float,
    options: tuple[str, ...] = (),
    before: str = "",
) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end, as `subprocess.run` does.

    Args:
        arguments: of the command.
        folder: where it runs.
        environment: all that it sees.
        stdin: what it is given to read.
        timeout: the seconds that it may take.
        options: of the interpreter, such as `-X dev`.
        before: Python that is carried out just before the command.

    Raises:
        subprocess.TimeoutExpired: it took too long and was killed.
    """
    asked = json.dumps([list(arguments), str(folder), dict(environment), before]).encode()
    told, telling = os.pipe()
    with TemporaryFile() as given, TemporaryFile() as out, TemporaryFile() as err, os.fdopen(told, "rb") as answers:
        given.write(stdin)
        given.seek(0)
        socket.send_fds(_forking(options), [asked], [given.fileno(), out.fileno(), err.fileno(), telling])
        os.close(telling)
        pid = int(answers.readline())
        if not select.select([answers], [], [], timeout)[0]:
            os.kill(pid, SIGKILL)
            raise subprocess.TimeoutExpired(list(arguments), timeout)
        code = int(answers.readline())
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(list(arguments), code, out.read(), err.read())


@cache
def _forking(options: tuple[str, ...]) -> socket.socket:
    """Start a process that forks, and return the way to it; it ends when this process does."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = {"PATH": os.environ["PATH"], "COLUMNS": "100", "LANG": "C.UTF-8"}
    with its:
        process = subprocess.Popen(
            [sys.executable, *options, __file__, str(its.fileno())],
            pass_fds=[its.fileno()],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def _serve(asking: socket.socket) -> None:
    """Fork for each request until nobody can ask any more; return in the fork, as the command that was asked for."""
    gc.freeze()
    while True:
        asked, files, _, _ = socket.recv_fds(asking, REQUEST_BYTES_MAX, 4)
        if not asked:
            sys.exit()
        *streams, telling = files
        pid = os.fork()
        if not pid:
            break
        for stream in streams:
            os.close(stream)
        with os.fdopen(telling, "wb", buffering=0) as answers:
            answers.write(b"%d\n" % pid)
            answers.write(b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    asking.close()
    os.close(telling)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    arguments, folder, environment, before = json.loads(asked)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = arguments
    exec(before, {})


if __name__ == "__main__":
    # What most commands need, and what the library of the command line loads with the first of them.
    import uvloop  # noqa: F401

    from payout_engine.app.engine import Engine  # noqa: F401
    from payout_engine.cli import main
    from payout_engine.cli.main import app
    from payout_engine.providers.senfenico.adapter import SenfenicoProvider  # noqa: F401
    from payout_engine.providers.senfenico.sandbox import sandbox  # noqa: F401

    with suppress(Exception):
        app(["show"], standalone_mode=False)  # which lacks an argument
    _serve(socket.socket(fileno=int(sys.argv[1])))
    main()
