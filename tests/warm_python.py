"""A Python interpreter that starts in a fifth of a second: its processes are forked from one that has imported torch.

Importing torch and Lightning takes 8 seconds of processor time, and the tests start more than 100 processes.
:func:`warm_python` starts a server that has imported them, and writes a program that is called as ``python`` is: with
``-m``, ``-c`` or a script. The program passes its arguments, environment, working folder and standard streams to the
server, which forks a process for it. That process has its own exit status, output and exit handlers. The program
forwards signals and returns the exit status. ``sys.executable`` is the program, so the ranks of a distributed run start
as fast. A process that inherits further descriptors, as the workers of a data loader do, is a new interpreter.

Differences to a new interpreter: torch and Lightning are in ``sys.modules``, the parent process is the server, and a
signal to the process group of the program reaches the process alone, not its children. ``os.getppid`` returns the
parent of the program. It needs the ``/proc`` of Linux.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Variables that change what an interpreter does at its start: with others than the server's, a new one is started.
_AT_START = ("PYTHON", "LC_", "LANG", "LD_", "KMP_", "MKL_")
_WITHOUT = ("PYTHONPATH", "PYTHONSAFEPATH", "PYTHONUNBUFFERED")  # what the forked process takes over itself

_PROGRAM = """#!{python} -IS
import os, signal, socket, sys
REAL, ADDRESS, KNOWN, AT_START, WITHOUT = {settings!r}
arguments = sys.argv[1:]
options = [word for word in arguments[:1] if word == "-u"]
words = arguments[len(options):]
start = {{k: v for k, v in os.environ.items() if k.startswith(AT_START) and k not in WITHOUT}}
known = words and (words[0] in ("-m", "-c") or not words[0].startswith("-"))
def inherited(descriptor):
    try:
        return descriptor > 2 and os.get_inheritable(descriptor)
    except OSError:  # that of the list itself
        return False
if not known or start != KNOWN or any(map(inherited, map(int, os.listdir("/proc/self/fd")))):
    os.execv(REAL, [REAL, *arguments])
import json
ignored = [n for n in (1, 2, 3, 13, 15) if signal.getsignal(n) == signal.SIG_IGN and n != signal.SIGPIPE]
request = json.dumps([words, dict(os.environ), os.getcwd(), ignored, os.getpid()]).encode()
server = socket.socket(socket.AF_UNIX)
server.connect(ADDRESS)
socket.send_fds(server, [len(request).to_bytes(8, "big")], [0, 1, 2])
server.sendall(request)
answers = server.makefile("r")
pid = int(answers.readline())
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
    if number not in ignored:
        signal.signal(number, lambda number, frame: os.kill(pid, number))
status = int(answers.readline())
if status < 0:
    signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
    os.kill(os.getpid(), -status)
os._exit(status)
"""


@contextmanager
def warm_python(folder: Path) -> Iterator[str]:
    """Start the server, and yield the path of the program. ``folder`` takes its files."""
    address = str(folder / "socket")
    known = {k: v for k, v in os.environ.items() if k.startswith(_AT_START) and k not in _WITHOUT}
    program = folder / "python"
    settings = sys.executable, address, known, _AT_START, _WITHOUT
    program.write_text(_PROGRAM.format(python=sys.executable, settings=settings))
    program.chmod(0o755)
    command = [sys.executable, __file__, address, str(program)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        yield str(program)
        server.communicate("end\n")  # a forked process that is still alive can hold the pipe, and no end of it comes


def _import() -> None:
    """Import what the commands import; not what reads environment variables of the tests at its import."""
    with contextlib.suppress(ImportError):  # a test hides it
        import tensorboard  # noqa: F401
    import torch
    import torchmetrics  # noqa: F401

    import d2csr.callbacks
    import d2csr.commands.base
    import d2csr.data.datamodule
    import d2csr.evaluation
    import d2csr.training.fit
    import d2csr.upscaling.upscale_task
    from shared_pairs import share_demo_pairs

    torch.set_num_threads(1)
    share_demo_pairs()
    # As the fixture without_curves does it: the picture takes two seconds at the end of a training.
    d2csr.callbacks.TrainingCurves.on_fit_end = lambda *_: None


def _receive(connection: socket.socket) -> dict[str, Any]:
    head, streams, *_ = socket.recv_fds(connection, 8, 3)
    with connection.makefile("rb") as file:
        values = json.loads(file.read(int.from_bytes(head, "big")))
    names = ("words", "environment", "folder", "ignored", "program")
    return {**dict(zip(names, values, strict=True)), "streams": streams}


class _Server:
    """Forks a process for each connection, and answers with its id and its exit status."""

    def __init__(self, address: str) -> None:
        self._running: dict[int, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(address)
        self._listener.listen(64)
        self._ended, wake = socket.socketpair()
        wake.setblocking(False)
        self._wake = wake
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake.fileno())
        for source in (self._listener, self._ended, sys.stdin):
            self._selector.register(source, selectors.EVENT_READ)

    def serve(self) -> dict[str, Any] | None:
        """Answer until the tests end: None. In a forked process, return the request."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is sys.stdin:
                    self._kill_all()
                    return None
                if key.fileobj is self._listener:
                    if request := self._start(self._listener.accept()[0]):
                        return request
                elif key.fileobj is self._ended:
                    self._ended.recv(4096)
                    self._reap()
                else:  # the program is gone: nobody waits for the process any more
                    self._selector.unregister(key.fileobj)
                    self._kill(key.data)

    def _start(self, connection: socket.socket) -> dict[str, Any] | None:
        request = _receive(connection)
        if pid := os.fork():
            for stream in request["streams"]:
                os.close(stream)
            self._running[pid] = connection
            self._selector.register(connection, selectors.EVENT_READ, pid)
            connection.sendall(f"{pid}\n".encode())
            return None
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for file in (connection, *self._running.values(), self._listener, self._ended, self._wake):
            file.close()
        self._selector.close()
        return request

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                pid, state = ended
                connection = self._running.pop(pid)
                with contextlib.suppress(KeyError):
                    self._selector.unregister(connection)
                with contextlib.suppress(OSError):
                    connection.sendall(f"{os.waitstatus_to_exitcode(state)}\n".encode())
                connection.close()

    def _kill(self, pid: int) -> None:
        if pid in self._running:
            os.kill(pid, signal.SIGKILL)

    def _kill_all(self) -> None:
        for pid in self._running:
            os.kill(pid, signal.SIGKILL)


def _parent(pid: int) -> int:
    """Return the parent of a process; 1 if the process has ended."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except FileNotFoundError:
        return 1


def _become(request: dict[str, Any], program: str) -> None:
    """Make this process what a new interpreter with this command line would be."""
    import torch

    os.setpgid(0, 0)
    for number, stream in enumerate(request["streams"]):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    for number in (signal.SIGINT, *request["ignored"]):
        signal.signal(number, signal.SIG_IGN if number in request["ignored"] else signal.default_int_handler)
    own = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    tempfile.tempdir = None  # TMPDIR is read again
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if "matplotlib" in sys.modules:  # torchmetrics imports it
        inline = "module://matplotlib_inline.backend_inline" if "ipykernel_launcher" in request["words"] else None
        if backend := os.environ.get("MPLBACKEND", inline):
            sys.modules["matplotlib"].rcParams["backend"] = backend
    sys.executable = program
    os.getppid = functools.partial(_parent, request["program"])  # the server's end is not the parent's
    given = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = given + [path for path in sys.path[1:] if path not in own]


def _run(words: list[str]) -> None:
    """Run ``-m MODULE …``, ``-c CODE …`` or ``SCRIPT …``."""
    kind = words[0] if words[0] in ("-m", "-c") else ""
    sys.orig_argv = [sys.executable, *words]
    first = {"-m": str(Path.cwd()), "-c": ""}.get(kind, str(Path(words[0]).resolve().parent))
    if not os.environ.get("PYTHONSAFEPATH"):
        sys.path.insert(0, first)
    sys.argv = words[1:] if kind == "-m" else ["-c", *words[2:]] if kind == "-c" else words
    if kind == "-m":
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        runpy.run_path(words[0], run_name="__main__")


def _run_and_exit(words: list[str]) -> None:
    """Run to the end, as an interpreter does, but without the seconds that freeing all modules of a fork takes."""
    status: Any = 0
    try:
        _run(words)
    except SystemExit as exit_:
        status = exit_.code
        if isinstance(status, str):
            print(status, file=sys.stderr)
        status = status if isinstance(status, int) else int(status is not None)
    except BaseException as error:
        status = 1
        trace = error.__traceback__
        while trace and trace.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        sys.excepthook(type(error), error.with_traceback(trace), trace)
    finally:
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status & 0xFF)


if __name__ == "__main__":
    _import()
    gc.collect()
    gc.freeze()  # the collector of a forked process need not copy these objects
    server = _Server(sys.argv[1])
    print("ready", flush=True)
    if asked := server.serve():
        _become(asked, sys.argv[2])
        del server
        _run_and_exit(asked["words"])
