from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import urllib.request
from pathlib import Path

import pytest

from d2csr.app.server import listen

GOLDEN = Path(__file__).parents[1] / "golden"
CKPT = f"ckpt={GOLDEN / 'net-x2-f16-b1.pkl'}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "ckpt=… is missing"),
        (["ckpt=nowhere.ckpt"], "nowhere.ckpt: no such checkpoint"),
        (["ckpt=[]"], "ckpt: name a checkpoint"),
        ([f"ckpt=[{GOLDEN / 'net-x2-f16-b1.pkl'},{GOLDEN / 'net-x2-f16-b1.pkl'}]"], "is named twice"),
        ([CKPT, "port=70000"], "port: must be a whole number from 0 to 65535"),
        ([CKPT, "queue=0"], "queue: must be a whole number"),
        ([CKPT, "max_megabytes=many"], "max_megabytes: must be a whole number"),
        ([CKPT, "inference.memory=much"], "inference.memory: must be auto"),
        ([CKPT, "device=tpu"], "device: must be cpu"),
        ([CKPT, "prot=1"], "port"),
        ([CKPT, "host=192.0.2.1", "port=0"], "host=192.0.2.1 port=0: cannot be used"),
    ],
)
def test_a_mistake_is_answered_in_one_line(call, tmp_path: Path, arguments: list[str], message: str) -> None:
    finished = call("app", *arguments)
    assert finished.returncode == 1
    assert message in finished.stderr
    assert "Traceback" not in finished.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_port_in_use_is_answered_in_one_line(call) -> None:
    with listen("127.0.0.1", 0) as taken:
        finished = call("app", CKPT, f"port={taken.getsockname()[1]}")
    assert finished.returncode == 1
    assert "Choose another port" in finished.stderr


def test_missing_packages_name_the_extra(call, monkeypatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "uvicorn" else real(name, *rest)
    )
    finished = call("app", CKPT)
    assert finished.returncode == 1
    assert finished.stderr == "error: d2csr-app needs uvicorn; install it by: pip install 'd2csr[app]'.\n"


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_the_command_serves_until_a_signal_and_leaves_no_file(
    python: str, tmp_path: Path, number: int, status: int
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    process = subprocess.Popen(
        [python, "-m", "d2csr.commands.app", CKPT, "port=0", "device=cpu"],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        started = re.match(r"(http://127\.0\.0\.1:\d+/) ", process.stdout.readline())
        assert started
        with urllib.request.urlopen(started[1], timeout=120) as response:
            assert b"<title>d2csr" in response.read()
        image = (GOLDEN / "eval-x4" / "china_LR4.png").read_bytes()
        headers = {"Content-Type": "application/octet-stream"}
        upload = urllib.request.Request(f"{started[1]}api/jobs?name=a%0Ab.png", image, headers)
        with urllib.request.urlopen(upload, timeout=120) as response:
            assert response.status == 201
        process.send_signal(number)
        printed, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == status
    assert "Traceback" not in printed
    assert list(temporary.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["tmp"]
