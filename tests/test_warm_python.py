"""Processes of the fixture ``python``, which behave as those of a new interpreter."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the fixture is the interpreter elsewhere"),
]

Finished = subprocess.CompletedProcess[str]


@pytest.fixture(params=["warm", "new"])
def run(request: pytest.FixtureRequest, python: str, tmp_path: Path) -> Callable[..., Finished]:
    """Return a function that runs a forked process or, for comparison, a new interpreter."""
    program = python if request.param == "warm" else sys.executable

    def start(*words: str, text: str = "", **environment: str) -> Finished:
        environment = {**os.environ, **environment}
        options = {"cwd": tmp_path, "env": environment, "input": text, "capture_output": True, "text": True}
        return subprocess.run([program, *words], **options, check=False, timeout=60)

    return start


def test_streams_folder_environment_and_arguments_are_the_callers(run, tmp_path: Path) -> None:
    code = "import os, sys; print(input(), os.getcwd(), os.environ['A'], sys.argv); print('e', file=sys.stderr)"
    done = run("-c", code, "x", "y", text="line\n", A="b")
    assert (done.stdout, done.stderr) == (f"line {tmp_path} b ['-c', 'x', 'y']\n", "e\n")
    assert os.environ.get("A") != "b"
    (tmp_path / "other").mkdir()
    done = run("-c", "import tempfile; print(tempfile.gettempdir())", TMPDIR=str(tmp_path / "other"))
    assert done.stdout == f"{tmp_path / 'other'}\n"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("import sys; sys.exit(3)", 3),
        ("import sys; sys.exit('text')", 1),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM),
        ("1 / 0", 1),
    ],
)
def test_the_exit_status_is_the_process_s(run, code: str, status: int) -> None:
    assert run("-c", code).returncode == status


def test_an_error_has_its_traceback_and_exit_handlers_run(run) -> None:
    done = run("-c", "import atexit; atexit.register(print, 'end'); 1 / 0")
    assert done.stdout == "end\n"
    assert done.stderr.startswith('Traceback (most recent call last):\n  File "<string>", line 1')
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


def test_scripts_and_modules_are_main(run, tmp_path: Path) -> None:
    text = (
        "import __main__, sys\nprint(__name__, getattr(__main__.__spec__, 'name', None), sys.argv[1:], sys.path[0])\n"
    )
    (tmp_path / "script.py").write_text(text)
    assert run("script.py", "a").stdout == f"__main__ None ['a'] {tmp_path}\n"
    assert run("-m", "script", "a").stdout == f"__main__ script ['a'] {tmp_path}\n"
    if sys.version_info >= (3, 11):
        assert not run("-m", "script", PYTHONSAFEPATH="1").stdout  # it is not found
    assert run("-c", "import sys; print(sys.path[1])", PYTHONPATH="/nowhere").stdout == "/nowhere\n"


def test_other_options_and_variables_of_the_interpreter_are_kept(run) -> None:
    assert run("-O", "-c", "assert False").returncode == 0
    assert run("-c", "import sys; print(sys.warnoptions)", PYTHONWARNINGS="error").stdout == "['error']\n"


def started(python: str, code: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([python, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.pid_of_code = int(process.stdout.readline())  # type: ignore[attr-defined]
    return process


def test_a_further_descriptor_is_inherited(python: str) -> None:
    read, write = os.pipe()
    subprocess.run([python, "-c", f"import os; os.write({write}, b'x')"], pass_fds=[write], check=True, timeout=60)
    assert os.read(read, 1) == b"x"
    for descriptor in (read, write):
        os.close(descriptor)


def test_signals_are_forwarded(python: str) -> None:
    code = "import os, signal\nsignal.signal(signal.SIGUSR1, lambda *_: os._exit(7))\nprint(os.getpid(), flush=True)\n"
    with started(python, f"{code}signal.pause()") as process:
        process.send_signal(signal.SIGUSR1)
        assert process.wait(30) == 7


def test_the_end_of_the_program_ends_the_process(python: str) -> None:
    with started(python, "import os, time; print(os.getpid(), flush=True); time.sleep(60)") as process:
        process.kill()
    end = time.monotonic() + 30
    while Path(f"/proc/{process.pid_of_code}").exists():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_torch_is_imported_in_a_new_process_and_none_is_the_parent_of_another(python: str) -> None:
    code = "import os, sys; print('torch' in sys.modules, os.getppid())"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"True {os.getpid()}\n"
