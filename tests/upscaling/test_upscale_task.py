"""Reading and writing go on while the network computes, and neither runs far ahead of it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from d2csr.errors import ConfigError
from d2csr.inference import Inference
from d2csr.upscaling import pipeline
from d2csr.upscaling.names import InputImage, Target
from d2csr.upscaling.pipeline import Job, Options, ReadAhead, Writer
from d2csr.upscaling.upscale_task import upscale_files

PATIENCE = 10


def jobs(folder: Path, count: int) -> list[Job]:
    names = [Path(f"{index}.png") for index in range(count)]
    return [Job(i, InputImage(folder / n, n), [Target(folder / "out" / n, "sr")]) for i, n in enumerate(names, start=1)]


def test_the_next_image_is_read_during_the_present_one_and_no_more(tmp_path, monkeypatch) -> None:
    begun = [threading.Event() for _ in range(4)]
    monkeypatch.setattr(pipeline, "read_picture", lambda path, limit: begun[int(path.stem)].set())
    seen = []
    for job in ReadAhead(jobs(tmp_path, 4), Options()):
        assert all(event.wait(PATIENCE) for event in begun[: job.number + 1])  # the present one and the next
        assert not any(event.is_set() for event in begun[job.number + 1 :])
        seen.append(job.number)
    assert seen == [1, 2, 3, 4]


def test_an_image_does_not_wait_for_the_next_one_to_be_read(tmp_path, monkeypatch) -> None:
    gate, finished = threading.Event(), []

    def read(path: Path, limit: int) -> None:
        if path.stem == "1":
            gate.wait(PATIENCE)
        finished.append(path.stem)

    monkeypatch.setattr(pipeline, "read_picture", read)
    images = iter(ReadAhead(jobs(tmp_path, 2), Options()))
    assert next(images).number == 1
    assert finished == ["0"]
    gate.set()
    assert next(images).number == 2


class InterruptedTrainer:
    """As Lightning after Ctrl-C: it has killed another process, in the middle of a file, and exits."""

    interrupted = True
    is_global_zero = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def predict(self, task, return_predictions: bool) -> None:
        (self.folder / f".half.png.{task.token}.partial").touch()
        raise SystemExit(1)


def test_what_a_killed_process_left_behind_is_removed(tmp_path, random_model) -> None:
    folder = tmp_path / "out"
    trainer = InterruptedTrainer(folder)
    images = [InputImage(tmp_path / "a.png", Path("a.png"))]
    with pytest.raises(KeyboardInterrupt):
        upscale_files(random_model(2), images, folder, trainer, Inference(), Options())
    assert list(folder.iterdir()) == []
    trainer.interrupted = False
    with pytest.raises(SystemExit):
        upscale_files(random_model(2), images, folder, trainer, Inference(), Options())


def test_what_is_there_is_not_read_and_what_is_broken_comes_as_a_problem(tmp_path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "0.png").touch()
    (tmp_path / "1.png").touch()
    there, broken = ReadAhead(jobs(tmp_path, 2), Options())
    assert (there.picture, there.problem) == (None, None)
    assert broken.problem == f"{tmp_path / '1.png'}: an empty file"
    (again, _) = ReadAhead(jobs(tmp_path, 2), Options(overwrite=True))
    assert "no such image" in again.problem


def test_writing_goes_on_beside_and_waits_when_it_falls_behind() -> None:
    gate, written = threading.Event(), []

    def write(number: int) -> str | None:
        gate.wait(PATIENCE)
        written.append(number)
        return f"problem {number}" if number == 1 else None

    writer = Writer()
    for number in range(2):
        writer.submit(lambda number=number: write(number))
    assert written == []  # yet we are here
    blocked = threading.Thread(target=lambda: writer.submit(lambda: write(2)))
    blocked.start()
    blocked.join(0.1)
    assert blocked.is_alive()  # two wait already
    gate.set()
    blocked.join(PATIENCE)
    assert writer.close() == ["problem 1"]
    assert written == [0, 1, 2]
    assert writer.close() == []


def test_an_interrupted_writer_finishes_what_it_has_begun_and_no_more() -> None:
    gate, begun, written = threading.Event(), threading.Event(), []

    def write(number: int) -> None:
        begun.set()
        gate.wait(PATIENCE)
        written.append(number)

    writer = Writer()
    for number in range(2):
        writer.submit(lambda number=number: write(number))
    assert begun.wait(PATIENCE)
    threading.Timer(0.1, gate.set).start()
    assert writer.close(cancel=True) == []
    assert written == [0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quality": 101}, "quality: expected"),
        ({"quality": "95"}, "quality"),
        ({"max_pixels": 0}, "max_pixels: expected"),
    ],
)
def test_figures_out_of_range_are_refused(options, message) -> None:
    with pytest.raises(ConfigError, match=message):
        Options(**options)
