from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

import workers


def test_the_files_that_use_the_demo_are_one_unit() -> None:
    assert {workers.unit(f"tests/{name}") for name in ("demo/test_demo.py", "docs/test_site.py")} == {"demo"}
    assert workers.unit("tests/test_losses.py") == "tests/test_losses.py"


def test_the_demo_and_files_with_slow_tests_start_first() -> None:
    def item(file: str, slow: bool) -> SimpleNamespace:
        return SimpleNamespace(nodeid=f"tests/{file}::test", get_closest_marker=lambda name: slow and name == "slow")

    files = [("test_losses.py", False), ("test_wheel.py", True), ("test_distributed.py", True)]
    files += [("test_distributed.py", True), ("docs/test_site.py", False)]
    ordered = workers.in_order([item(*file) for file in files])
    expected = ["docs/test_site.py", "test_distributed.py", "test_distributed.py", "test_wheel.py", "test_losses.py"]
    assert [item.nodeid for item in ordered] == [f"tests/{file}::test" for file in expected]


@pytest.mark.parametrize(("cores", "expected"), [(1, 0), (2, 2), (64, 4)])
def test_a_whole_run_uses_the_cores(cores: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert workers.count(["tests"], "") == expected


@pytest.mark.parametrize(
    ("arguments", "keyword"), [([__file__], ""), (["tests/test_losses.py::test_x"], ""), (["tests"], "losses")]
)
def test_chosen_tests_need_no_workers(arguments: list[str], keyword: str) -> None:
    assert workers.count(arguments, keyword) == 0
